"""What has to be made again, and why: the smallest set of partitions that the rules of the tables allow, and its runs.

Only the log is read; nothing is changed. A partition is planned if an event that its rows do not know, or that is to
come, *can* change it: by its date and its landing day, and for the outer neighbours of sessions by its distance to
midnight. docs/design.md, "Planning a backfill", has the rules.

`history` is what the log says, read once. `partitions` says which are made again, `runs` by which runs, and `costs` how
long these take: functions of that history and the settings alone. `planner` makes a `plan` of them.
"""
