"""The one code file inside every artifact (MLflow calls it models-from-code); it never changes from model to model."""

from mlflow.models import set_model

from fin_pyfunc.model.wrapper import FinPyfuncModel

set_model(FinPyfuncModel())
