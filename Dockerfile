# Everything is installed in a stage of its own, so that neither pip nor what builds the package is in the image that
# runs it. It runs as a user without rights, and writes to /tmp alone:
#
#     docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges resegment worker
FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements/base.txt requirements/build.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
RUN python -m venv --without-pip /opt/resegment \
    && pip --python /opt/resegment/bin/python install --no-cache-dir --require-hashes -r requirements/base.txt
COPY pyproject.toml README.md LICENSE ./
COPY segmentation segmentation
COPY state state
COPY streams streams
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip --python /opt/resegment/bin/python install --no-cache-dir --no-deps wheels/*.whl

FROM python:3.12-slim
# nothing is installed in here later
RUN rm -rf /usr/local/lib/python3.12/site-packages/* /usr/local/lib/python3.12/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/resegment /opt/resegment
ENV PATH=/opt/resegment/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# by number: whoever runs it can tell that it is not root
USER 10001:10001
ENTRYPOINT ["resegment"]
CMD ["worker"]
