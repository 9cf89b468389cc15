"""Process labels: how many right step labels each method gets out of a rollout token."""
