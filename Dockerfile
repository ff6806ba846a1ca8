# The package is built in a stage of its own, so that what builds it is not in the image that runs it.
FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements/build.txt requirements/build.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY segmentation segmentation
COPY state state
COPY streams streams
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1
COPY requirements/base.txt /tmp/base.txt
RUN pip install --no-cache-dir --require-hashes -r /tmp/base.txt && rm /tmp/base.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl && rm -r /wheels
RUN useradd --system --uid 10001 --no-create-home resegment
USER resegment
ENTRYPOINT ["resegment"]
CMD ["worker"]
