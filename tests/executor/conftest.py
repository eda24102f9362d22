import pytest

from tests.executor.driver import Driver


@pytest.fixture(scope="module")
def shared_executor(tmp_path_factory):
    driver = Driver(tmp_path_factory.mktemp("executor"))
    yield driver
    driver.close()


@pytest.fixture
def executor(shared_executor):
    """An executor that runs already and knows no function."""
    shared_executor.drop_function()
    return shared_executor


@pytest.fixture
def fresh_executor(tmp_path):
    driver = Driver(tmp_path)
    yield driver
    driver.close()
