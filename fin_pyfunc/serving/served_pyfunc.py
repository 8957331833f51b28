"""A model that is data, as MLflow's scoring code sees it: metadata that this server wrote, around what is open already.

MLflow would read the model's folder by its own rules (`data`, `model_path`, `loader_module`, `skops_trusted_types`),
which may lead to other files than those that were checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.serving.model_folder import ModelFolder

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import PyFuncModel

#: What MLflow hands rows to, by what it calls the module that would have loaded it; some checks of a signature differ.
_LOADERS = {"fin_pyfunc": "mlflow.pyfunc.loaders.code_model", "sklearn": "mlflow.sklearn"}


def signature_of(folder: ModelFolder) -> ModelSignature | None:
    """A model's signature, read from the texts in its MLmodel.

    Raises
    ------
    ArtifactError
        They are none that MLflow writes.
    """
    if folder.signature is None:
        return None
    from mlflow.models import ModelSignature

    try:
        return ModelSignature.from_dict(dict(folder.signature))
    except Exception as e:  # JSON that is none, or of fields that there are not
        raise ArtifactError("The model's MLmodel is not one that MLflow writes: log the model again.") from e


def metadata_of(folder: ModelFolder, flavor: str = "pyfunc") -> Model:
    """What MLflow's scoring code reads of a model, with its signature and nothing else of its MLmodel."""
    from mlflow.models import Model

    function = {"loader_module": _LOADERS.get(flavor, f"mlflow.{flavor}")}
    return Model(flavors={"python_function": function}, signature=signature_of(folder))


def of_classifier(folder: ModelFolder, model: Classifier) -> PyFuncModel:
    """Our own artifact as MLflow's PythonModel, sharing everything that is open with `model`."""
    from mlflow.pyfunc.model import _PythonModelPyfuncWrapper

    from fin_pyfunc.model.wrapper import FinPyfuncModel

    own = FinPyfuncModel()
    own.__dict__.update(model.__dict__)
    return _pyfunc(folder, _PythonModelPyfuncWrapper(own, None, signature_of(folder)), "fin_pyfunc")


def of_estimator(folder: ModelFolder, estimator: Any) -> PyFuncModel:
    """An estimator as the flavor that it was logged with answers for it."""
    if folder.flavor == "lightgbm":
        from mlflow.lightgbm import _LGBModelWrapper as Wrapper
    else:
        from mlflow.sklearn import _SklearnModelWrapper as Wrapper
    return _pyfunc(folder, Wrapper(estimator), f"{folder.flavor}")


def of_onnx(folder: ModelFolder) -> PyFuncModel:
    """An ONNX file as MLflow's ONNX flavor answers for it, with ONNX Runtime's own options on the CPU."""
    import onnxruntime
    from mlflow.onnx import _OnnxModelWrapper

    from fin_pyfunc.model.soundness.onnx import check_onnx

    content = folder.data_file.read_bytes()
    check_onnx(content)
    wrapper = _OnnxModelWrapper.__new__(_OnnxModelWrapper)  # its __init__ reads the stranger's MLmodel
    # with the threads that MLflow's session has: the last bit of a sum may depend on them
    wrapper.rt = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    wrapper.inputs = [(each.name, each.type) for each in wrapper.rt.get_inputs()]
    wrapper.output_names = [each.name for each in wrapper.rt.get_outputs()]
    return _pyfunc(folder, wrapper, "onnx")


def by_mlflow(path: Path) -> PyFuncModel:
    """Any model as MLflow itself loads it, which may run code that came with it.

    Raises
    ------
    ArtifactError
    """
    import mlflow.pyfunc

    try:
        return mlflow.pyfunc.load_model(str(path), suppress_warnings=True)
    except Exception as e:
        raise ArtifactError.not_loaded(e) from e


def _pyfunc(folder: ModelFolder, wrapper: Any, flavor: str) -> PyFuncModel:
    from mlflow.pyfunc import PyFuncModel

    return PyFuncModel(model_meta=metadata_of(folder, flavor), model_impl=wrapper, predict_fn=folder.predict_method)
