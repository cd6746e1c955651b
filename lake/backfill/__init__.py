"""The planner of backfills: the smallest set of partitions to reprocess that the rules of the tables allow.

It reads only the logs of the tables, and changes nothing. A partition is planned if an event that its rows do not
include, or that may be delivered, *can* change it: by the date and the landing day of the event, and for the outer
neighbours of sessions by its distance to midnight. docs/design.md, "Planning a backfill", has the rules.

`history` has the content of the logs, read once. From this history and the settings alone, `partitions` decides which
partitions are reprocessed and `runs` by which runs; `costs` estimates their times. `planner` puts them into a `plan`.
"""
