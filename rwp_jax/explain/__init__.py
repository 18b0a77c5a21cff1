"""Why a run turned out as it did: losses below c_min, steps taken, and the loss around the weights."""
