"""Every key of a config with its default. The other files of this directory start from here."""

import ml_collections

INF = float("inf")


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.seed = 0  # of initialisation, order of examples, augmentation and random starts
    config.epochs = 200  # passes of the training set, unless epoch_examples says otherwise
    config.epoch_examples = 0  # length of an epoch; 0 is one pass of the training set
    config.batch_size = 128  # over all devices of all hosts
    config.dtype = "float32"  # of activations: float32, bfloat16 or float64 (then everything is)
    config.precision = "default"  # of float32 matrix products: default (fast), high or highest
    config.parallel = "pmap"  # or shard_map: how a step is spread over devices
    config.gradient_dtype = (
        ""  # of gradients while devices exchange them: "" is their own, or bfloat16
    )
    config.checkpoint_steps = 0  # save every so many steps too, not only after epochs; 0: no

    config.data = ml_collections.ConfigDict()
    config.data.name = (
        "digits"  # digits, npz; cifar10, cifar100, svhn_cropped (tensorflow-datasets)
    )
    config.data.path = ""  # npz: a file with x_train, y_train, x_test, y_test, images uint8 NHWC
    config.data.data_dir = ""  # of tensorflow-datasets; "" is ~/tensorflow_datasets
    config.data.svhn_extra = False  # svhn_cropped: train on its 531,131 extra images too
    config.data.train_examples = (
        0  # train on so many, a fixed choice; 0: all (digits: see sources.py)
    )
    config.data.validation_examples = 0  # hold out so many training images, to select epochs by
    config.data.labeled_examples = 0  # keep so many labels, make the rest extra data; 0 keeps all

    config.extra_data = ml_collections.ConfigDict()  # pseudo-labelled or unlabelled images
    config.extra_data.path = ""  # npz or pickle with data uint8 NHWC, extrapolated_targets
    config.extra_data.use_labels = True  # False: train on them as unlabelled
    config.extra_data.unlabeled_fraction = 0.5  # of every batch; -1 mixes both into one pool
    config.extra_data.weight = 1.0  # lambda of Eq. (6), of each extra example's loss

    config.augment = ml_collections.ConfigDict()
    config.augment.padding = 0  # pixels on each side, then a random crop of the original size
    config.augment.pad_mode = "reflect"  # or zero
    config.augment.flip = False  # mirror half of the images left to right
    config.augment.rotation = 0.0  # up to so many degrees either way

    config.model = ml_collections.ConfigDict()
    config.model.name = "preactresnet18"  # or wrn-DEPTH-WIDTH
    config.model.mean = ()  # per channel in [0, 1], subtracted from pixels inside the model; () is none
    config.model.std = ()  # per channel, divided by
    config.model.per_device_batch_norm = False  # moments of each device's part of the batch alone

    config.threat = ml_collections.ConfigDict()
    config.threat.norm = "l_inf"  # or l_2
    config.threat.epsilon = 8 / 255  # radius, pixels being in [0, 1]; may be typed as 8/255

    config.attack = ml_collections.ConfigDict()  # PGD on the training images
    config.attack.variant = "madry"  # start and projection as in the AT scripts, or trades
    config.attack.steps = 10  # K1
    config.attack.step_size = 2 / 255  # alpha
    config.attack.bn = (
        "train"  # BN during the attack: train (updates running statistics), batch, eval
    )

    config.objective = ml_collections.ConfigDict()
    config.objective.name = "at"  # natural, at, trades, rst (TRADES with extra data) or mart
    config.objective.beta = 6.0  # trades, rst, mart: weight of the KL
    config.objective.entropy_weight = 0.0  # trades, rst: of the entropy of unlabelled examples

    config.weight_perturbation = ml_collections.ConfigDict()
    config.weight_perturbation.name = "rwp"  # none, awp or rwp
    config.weight_perturbation.gamma = 0.01  # ||v|| = gamma ||w||
    config.weight_perturbation.steps = 10  # K2, the most ascent steps of rwp; awp takes one
    config.weight_perturbation.c_min = 1.7  # rwp perturbs on examples with loss < c_min
    config.weight_perturbation.start_epoch = 0  # first epoch (from 0) that perturbs
    config.weight_perturbation.accumulate = (
        "reference"  # the authors' code, or "paper": Algorithm 1
    )
    config.weight_perturbation.lsc_low = 0.0  # perturb only on losses in [lsc_low, lsc_high), with
    config.weight_perturbation.lsc_high = (
        INF  # awp too (Figure 1(c)); rwp's c_min bounds it besides
    )

    config.optimizer = ml_collections.ConfigDict()  # SGD
    config.optimizer.learning_rate = 0.1  # before the schedule lowers it
    config.optimizer.schedule = "piecewise"  # /10 at 1/2, /100 at 3/4 of training; see optimizer.py
    config.optimizer.momentum = 0.9  # as PyTorch: velocity = momentum * velocity + gradient
    config.optimizer.nesterov = False  # Nesterov's momentum, as PyTorch
    config.optimizer.weight_decay = 5e-4  # on every parameter

    config.ema_decay = 0.0  # also keep an average of the weights with this decay a step; 0: none

    config.evaluation = ml_collections.ConfigDict()  # natural and PGD accuracy on the test set
    config.evaluation.every = 1  # so many epochs, and after the last; best is chosen among these
    config.evaluation.batch_size = 0  # over all devices; 0: 256 an accelerator, 128 on CPUs
    config.evaluation.precision = "default"  # of the attack's matrix products; verdicts: highest
    config.evaluation.steps = 20  # of PGD
    config.evaluation.step_size = 2 / 255  # of PGD, in the norm of the threat model
    config.evaluation.train_examples = (
        1000  # so many training images are evaluated besides; 0: none
    )

    config.self_training = ml_collections.ConfigDict()  # RST's first stage, within the run
    config.self_training.epochs = (
        0  # of plain training, which then labels the extra images; 0: none
    )

    return config
