"""From a fitted estimator to a logged model: `log_model` and `save_model`, in log.py."""
