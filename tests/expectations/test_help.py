"""What `--help` of the audit prints is on file: a change of it is seen in review.

After a change on purpose: UPDATE_GOLDEN=1 pytest tests/expectations/test_help.py
"""


def test_the_help_of_the_audit(golden_help):
    golden_help("expectations.audit")
