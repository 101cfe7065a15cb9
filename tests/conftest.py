"""Fixtures that several test modules share."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture(scope="session")
def digits():
    """The demo's model, trained, and its data: model, x_train, y_train, x_test, y_test."""
    from snnc import demo

    x_train, y_train, x_test, y_test = demo.digits()
    return demo.train(x_train, y_train), x_train, y_train, x_test, y_test
