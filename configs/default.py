"""Every key of a config with its default. The other files of this directory start from here.

A comment stands behind its key or, where it is long, in the lines above it; `--help --config NAME` and the
documentation show it.
"""

import ml_collections

INF = float("inf")


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.seed = 0  # seed of initialisation, order of examples, augmentation and random starts
    config.epochs = 200  # number of epochs
    config.epoch_examples = 0  # examples per epoch; 0: one pass over the training set
    config.batch_size = 128  # examples per step, over all devices of all hosts
    config.dtype = "float32"  # dtype of activations: float32, bfloat16, or float64 for everything
    config.precision = "default"  # of float32 matrix products: default (fast), high or highest
    config.parallel = "pmap"  # how a step is spread over devices: pmap or shard_map
    # dtype of gradients while devices exchange them: bfloat16, or "" for their own
    config.gradient_dtype = ""
    # recompute residual blocks in backward passes of training: less memory on GPUs and TPUs, more time
    config.remat = False
    config.checkpoint_steps = 0  # also save every N steps; 0: only after epochs

    config.data = ml_collections.ConfigDict()
    # data set: digits, npz, or from tensorflow-datasets cifar10, cifar100, svhn_cropped
    config.data.name = "digits"
    config.data.path = ""  # npz with x_train, y_train, x_test, y_test; images uint8 [N, H, W, C]
    config.data.data_dir = ""  # directory of tensorflow-datasets; "": ~/tensorflow_datasets
    config.data.svhn_extra = False  # svhn_cropped: also train on its 531,131 extra images
    # train on this many images, always the same; 0: all. Digits that are left out belong to the test set
    config.data.train_examples = 0
    # hold out this many training images, by which best_by_validation is chosen
    config.data.validation_examples = 0
    # keep this many labels and make the other images extra data; 0: keep all
    config.data.labeled_examples = 0

    config.extra_data = ml_collections.ConfigDict()  # pseudo-labelled or unlabelled images
    # npz or pickle: data or image, uint8 [N, H, W, C], with extrapolated_targets or label; or a directory
    # of --mode write_data, whose images are read from disk while training
    config.extra_data.path = ""
    config.extra_data.use_labels = True  # False: train on them without labels
    # share of extra images in each batch; -1: labelled and extra images form one pool
    config.extra_data.unlabeled_fraction = 0.5
    config.extra_data.weight = 1.0  # lambda of Eq. (6), weight of the loss of an extra example

    config.augment = ml_collections.ConfigDict()
    config.augment.padding = 0  # pixels added on each side before a random crop of the image size
    config.augment.pad_mode = "reflect"  # what the padding holds: reflect or zero
    config.augment.flip = False  # mirror half of the images horizontally
    config.augment.rotation = 0.0  # largest random rotation in degrees, either way
    config.augment.cutout = 0  # Cutout: side in pixels of a black square at a random place; 0: none
    # CutMix: alpha of the Beta distribution of the share that an image keeps; 0: none
    config.augment.cutmix = 0.0

    config.model = ml_collections.ConfigDict()
    # preactresnet18, wrn-DEPTH-WIDTH, dm-preactresnet18, dm-wrn-DEPTH-WIDTH or a registered name
    config.model.name = "preactresnet18"
    # relu or silu; "": the network's own, silu in dm- networks and relu in others
    config.model.activation = ""
    # weight of the batch in BatchNorm's running statistics, as PyTorch's momentum (1 minus Flax's)
    config.model.bn_momentum = 0.1
    config.model.mean = ()  # subtracted from pixels in [0, 1] inside the network, per channel; (): 0
    config.model.std = ()  # pixels are divided by it inside the network, per channel; (): 1
    # BatchNorm's moments over each device's part of the batch, not over the whole batch
    config.model.per_device_batch_norm = False

    config.threat = ml_collections.ConfigDict()
    config.threat.norm = "l_inf"  # l_inf or l_2
    config.threat.epsilon = 8 / 255  # radius, for pixels in [0, 1]; fractions are accepted

    config.attack = ml_collections.ConfigDict()  # PGD on the training images
    config.attack.variant = "madry"  # start and projection of the AT scripts (madry) or of trades
    config.attack.steps = 10  # K1, number of steps
    config.attack.step_size = 2 / 255  # alpha, in the norm of the threat model
    # BatchNorm during the attack: train (updates running statistics), batch or eval
    config.attack.bn = "train"

    config.objective = ml_collections.ConfigDict()
    # natural, at, trades, trades_lse (of squared errors), rst (TRADES with extra data), mart or a
    # registered name
    config.objective.name = "at"
    # weight of the loss between clean and attacked images, such as TRADES' KL
    config.objective.beta = 6.0
    # weight of the entropy of unlabelled examples in trades and rst
    config.objective.entropy_weight = 0.0
    # share of a target that is spread over all classes, as in PyTorch's CrossEntropyLoss
    config.objective.label_smoothing = 0.0
    # trades_lse: what is subtracted from the squared error of x'; 0: none
    config.objective.clip = 0.0

    config.weight_perturbation = ml_collections.ConfigDict()
    config.weight_perturbation.name = "rwp"  # none, awp or rwp
    config.weight_perturbation.gamma = 0.01  # norm of v relative to that of the weights
    config.weight_perturbation.steps = 10  # K2, most ascent steps of rwp; awp takes one
    config.weight_perturbation.c_min = 1.7  # rwp perturbs on examples with a loss below c_min
    config.weight_perturbation.start_epoch = 0  # first epoch that perturbs, counted from 0
    # sum of ascent steps: reference (the authors' code) or paper (Algorithm 1)
    config.weight_perturbation.accumulate = "reference"
    # awp and rwp perturb only on losses in [lsc_low, lsc_high), as in Figure 1(c)
    config.weight_perturbation.lsc_low = 0.0
    config.weight_perturbation.lsc_high = INF  # upper end of that range

    config.optimizer = ml_collections.ConfigDict()  # SGD
    config.optimizer.learning_rate = 0.1  # full rate, which the schedule scales
    # piecewise: divided by 10 after 1/2 and again after 3/4 of training; others in docs/training.md
    config.optimizer.schedule = "piecewise"
    # share of training in which one_cycle, cosine_warmup and cyclic raise the rate
    config.optimizer.warmup = 0.0
    config.optimizer.momentum = 0.9  # as in PyTorch: velocity = momentum * velocity + gradient
    # one_cycle: lowest and highest momentum, such as PyTorch's (0.85, 0.95); (): constant
    config.optimizer.cycle_momentum = ()
    config.optimizer.nesterov = False  # Nesterov momentum, as in PyTorch
    config.optimizer.weight_decay = 5e-4  # on every parameter that no_decay leaves
    # regular expression: no weight decay on parameters in whose path it is found; "": on all
    config.optimizer.no_decay = ""
    config.optimizer.clip_norm = 0.0  # largest global norm of the gradient; 0: any

    config.ema_decay = 0.0  # decay per step of an average of the weights that is also kept; 0: none
    config.ema_start = 0.0  # share of training before which the average is a copy of the weights
    # the average has the running statistics of the trained network; False: averages of them
    config.ema_copy_batch_stats = False

    config.evaluation = ml_collections.ConfigDict()  # natural and PGD accuracy on the test set
    config.evaluation.every = 1  # epochs between evaluations; best is chosen among those evaluated
    # images at once, over all devices; 0: 256 per accelerator, 128 on CPUs
    config.evaluation.batch_size = 0
    # of the attack's matrix products: default (fast), high or highest; verdicts always use highest
    config.evaluation.precision = "default"
    config.evaluation.steps = 20  # number of PGD steps
    config.evaluation.step_size = 2 / 255  # of PGD, in the norm of the threat model
    # attack on held-out images: pgdN or cwN, N steps on the cross-entropy or C&W's loss; "": that on
    # the test images
    config.evaluation.validation_attack = ""
    config.evaluation.train_examples = 1000  # training images to evaluate too; 0: none

    config.self_training = ml_collections.ConfigDict()  # RST's first stage, within the run
    # epochs of training without attacks, which then labels the extra images; 0: none
    config.self_training.epochs = 0

    return config
