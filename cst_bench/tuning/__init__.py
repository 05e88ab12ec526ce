"""Training: a recipe and preference rows become a checkpoint, with TRL's DPO trainer, packed where that is exact."""

from cst_bench.tuning.recipe import Recipe, load_recipe
from cst_bench.tuning.train_options import TrainOptions
from cst_bench.tuning.training import PACKAGES, TrainResult, train

__all__ = ["PACKAGES", "Recipe", "TrainOptions", "TrainResult", "load_recipe", "train"]
