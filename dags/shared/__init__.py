"""The parts of the DAGs: operators, sensors, run ids, publishing, deadlines, links, alerts."""
