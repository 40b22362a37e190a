"""Recipes: how the networks of the zoo are made from nothing, and the tasks that belong to them."""
