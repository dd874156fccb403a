"""Training of the image tokenizer: a second recipe on the parts that the recipes share."""

from kyvo.training.vqgan.config import VQGANTrainingConfig
from kyvo.training.vqgan.plan import VQGANPlan, plan_vqgan
from kyvo.training.vqgan.recipe import VQGANRecipe, train_vqgan

__all__ = ["VQGANPlan", "VQGANRecipe", "VQGANTrainingConfig", "plan_vqgan", "train_vqgan"]
