"""The API conforms to its description, whatever it is sent."""

import pytest
import schemathesis
from contributor import submit
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from visitor import fasta

CALM = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.slow
# A description cannot say what makes a text a protein, so that much that fits it is refused all the same.
BEYOND_DESCRIPTION = [positive_data_acceptance]


def holds(operation, mode, job, submission):
    """Return whether an operation could be tested; fail if it does not conform."""
    excluded = BEYOND_DESCRIPTION if operation.method == "post" else []

    @CALM
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps(case):
        if case.method.lower() != "delete" and "job_id" in case.path_parameters:
            # No id can be guessed: without this, every answer would be 404.
            case.path_parameters["job_id"] = job
        if case.method.lower() != "delete" and "submission_id" in case.path_parameters:
            case.path_parameters["submission_id"] = submission
        case.call_and_validate(excluded_checks=excluded)

    try:
        keeps()
    except Unsatisfiable:
        # An address without parameters cannot be asked wrongly.
        assert mode is GenerationMode.NEGATIVE
        return False
    return True


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_api_conforms_to_its_description(visitor, mode):
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", visitor.client.app)
    job = visitor.predict(fasta(2), nuclei=["hek-1"])
    submission = submit(visitor).json()["id"]
    operations = [each.ok() for each in schema.get_all_operations()]
    assert sum(holds(operation, mode, job, submission) for operation in operations) > 5
