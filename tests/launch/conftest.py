import pytest

from tests.launch.road import Road, make_road


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> Road:
    return make_road(tmp_path_factory.mktemp("road"))
