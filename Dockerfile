# fin_pyfunc in a container, on any Debian with Python 3.11 or newer:
#   --target server   serves any model of the MLflow store that it is given
#   --target model    serves the one model in model/ beside this file (`fin-pyfunc image build` puts it there)
#   --target mlflow   MLflow's own tracking server, for compose.yaml
ARG BASE_IMAGE=python:3.11-slim

# every package in the version and with the bytes that were tested
FROM ${BASE_IMAGE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
COPY fin_pyfunc/image/requirements.txt /src/requirements.txt
RUN /opt/venv/bin/python -m pip install --quiet --no-compile --no-deps --require-hashes -r /src/requirements.txt

# ours: the wheel that `fin-pyfunc image` wrote, or else this checkout
FROM packages AS built
COPY . /src
# a compiler, and Python's headers where the base image's Python is Debian's
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends binutils gcc libc6-dev libgomp1 >/dev/null \
    && { /opt/venv/bin/python -c 'import sysconfig; open(sysconfig.get_paths()["include"] + "/Python.h")' 2>/dev/null \
        || apt-get install -qq --yes --no-install-recommends libpython3-dev >/dev/null; }
RUN if ls /src/dist/*.whl >/dev/null 2>&1; then set -- /src/dist/*.whl; else set -- --no-build-isolation /src; fi \
    && /opt/venv/bin/python -m pip install --quiet --no-compile --no-deps "$@" \
    && cd /opt/venv/lib/python3*/site-packages/fin_pyfunc \
    && include=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])') \
    && for module in model/backends/_trees serving/_lines; do \
        gcc -O2 -ffp-contract=off -shared -fPIC -I"$include" "$module.c" -lm -o "$module.abi3.so" || exit 1; done
# what no server needs: plotting and the packages of MLflow's own server and agents, tests, headers, Arrow's RPC and
# cloud connectors, ONNX Runtime's C library (its Python one has all of it) and tools, MLflow's web page, symbols, pip
RUN cp -L /usr/lib/*-linux-gnu/libgomp.so.1 /opt/venv/lib/
RUN /opt/venv/bin/python -m pip uninstall --quiet --yes \
        contourpy cycler docker fonttools kiwisolver matplotlib pillow pyparsing setuptools \
        aiohttp aiosignal aiohappyeyeballs frozenlist multidict propcache yarl blinker flask flask-cors itsdangerous \
        gitpython gitdb smmap graphene graphql-core graphql-relay huey wcwidth websockets watchfiles werkzeug \
    && cd /opt/venv/lib/python3*/site-packages \
    && find . -type d \( -name tests -o -name test \) -not -path "./mlflow/*" -prune -exec rm -rf {} + \
    && find . -type f \( -name "*.pyi" -o -name "*.pyx" -o -name "*.pxd" -o -name "*.h" \
        -o -name "*.hpp" -o -name "*.cc" -o -name "*.pxi" -o -name "*.tp" -o -name "*.jpg" \) -delete \
    && rm -rf pyarrow/src pyarrow/*flight* pyarrow/_pyarrow_cpp_tests* pyarrow/_s3fs* pyarrow/_gcsfs* pyarrow/_hdfs* pyarrow/_azurefs* pyarrow/libarrow_python*.so pyarrow/libarrow_python*.*.*.* \
        onnxruntime/capi/libonnxruntime.so* onnxruntime/tools onnxruntime/transformers onnxruntime/quantization \
        onnxruntime/datasets onnx/backend/test onnx/reference scipy/odr mlflow/assistant mlflow/server/js mlflow/utils/model_catalog \
        mpl_toolkits sqlalchemy/dialects/oracle xgboost/spark xgboost/testing pip pip-*.dist-info \
    && find . -name "*.so*" -type f | while read -r library; do \
        if strip --strip-unneeded -o /tmp/stripped "$library" 2>/dev/null && ldd /tmp/stripped >/dev/null 2>&1; \
        then cat /tmp/stripped >"$library"; fi; done  # strip breaks some that patchelf wrote: those stay as they are
# tried out: a model is fitted, logged, served and asked in every way, and Python compiles what that imports; of those
# modules (not MLflow's and ours) the image keeps the compiled form alone, and is tried again
ENV MLFLOW_DISABLE_TELEMETRY=true MLFLOW_TRACKING_URI=sqlite:////tmp/trial/mlflow.db
RUN mkdir /tmp/trial && cd /tmp/trial && export PATH=/opt/venv/bin:$PATH \
    && fin-pyfunc demo --trees 5 >/dev/null \
    && python -m fin_pyfunc.image.trial models:/eurusd_rf@champion \
    && cd /opt/venv/lib/python3*/site-packages \
    && find . -name "*.cpython-*.pyc" -not -path "./mlflow/*" -not -path "./fin_pyfunc*" | while read -r compiled; do \
        module=${compiled%/__pycache__/*}/$(basename "${compiled%%.cpython-*}"); \
        if [ -f "$module.py" ]; then mv "$compiled" "$module.pyc" && rm "$module.py"; fi; done \
    && cd /tmp/trial && python -m fin_pyfunc.image.trial models:/eurusd_rf@champion

FROM ${BASE_IMAGE} AS server
LABEL org.opencontainers.image.title="fin_pyfunc" org.opencontainers.image.licenses="Apache-2.0"
# nothing is written beside the code; /data is for a store or keys that an operator mounts
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app && install -d -o app /data
COPY --from=built /opt/venv /opt/venv
RUN ln -s /opt/venv/lib/libgomp.so.1 /usr/local/lib/ && ldconfig  # GNU's OpenMP, for LightGBM and XGBoost
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MLFLOW_DISABLE_TELEMETRY=true \
    FIN_PYFUNC__HOST=0.0.0.0 FIN_PYFUNC__PORT=8000
WORKDIR /data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-Ic", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FIN_PYFUNC__PORT'] + '/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fin-pyfunc", "serve"]

FROM server AS model
COPY --chmod=a=rX model /model
# no store is asked for anything: the model's own folder is all there is
ENV FIN_PYFUNC__MODEL_URI=/model

FROM packages AS mlflow
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app && install -d -o app /data
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_BACKEND_STORE_URI=sqlite:////data/mlflow.db MLFLOW_ARTIFACTS_DESTINATION=/data/artifacts
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-Ic", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]
CMD ["--workers", "1", "--serve-artifacts"]

# what `docker build .` makes
FROM server
