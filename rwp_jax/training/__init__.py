"""From a config to a trained network: attack, weight perturbation, update, epoch loop."""
