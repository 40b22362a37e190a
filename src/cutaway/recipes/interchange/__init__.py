"""Training a network to run an algorithm in stated places, by interchange interventions."""
