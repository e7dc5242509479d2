"""Published accuracies, with their sources, and the goals that were set before training."""

# Percent on the default splits of the UCR archive: ROCKET, ResNet, InceptionTime, MultiROCKET; and the goal.
UCR = {
    "EthanolLevel": (58.3, 75.8, 82.2, 63.8, 82.0),
    "PigCVP": (93.4, 91.8, 96.2, 87.0, 95.0),
    "HouseTwenty": (96.4, 98.3, 98.3, 99.2, 98.0),
    "ACSF1": (88.6, 91.6, 94.0, 92.0, 92.0),
    "EOGHorizontalSignal": (63.9, 59.9, 59.1, 65.7, 65.0),
    "Lightning2": (75.9, 78.0, 78.7, 67.2, 78.0),
    "FordA": (94.4, 93.7, 96.1, 95.8, 96.0),
}
NAMES = ("ROCKET", "ResNet", "InceptionTime", "MultiROCKET")
SOURCE = (
    "Default splits of the UCR archive (Dau et al., arXiv 1810.07758). ROCKET: Dempster et al., arXiv 1910.13051. "
    "ResNet: Ismail Fawaz et al., arXiv 1809.04356. InceptionTime: Ismail Fawaz et al., arXiv 1909.04939. MultiROCKET: "
    "Tan et al., arXiv 2102.00457. None of them was run here, and their protocols differ in the number of runs."
)
