"""Wrong changes to what a model learns from and how: dates, features, input, losses, network, training, workers."""

from tests.mutants.mutant import Mutant

FEATURES = "tests/model/data/test_features.py"
INPUT = "tests/model/data/test_input.py"
LOSSES = "tests/model/network/test_losses.py"
NETWORK = "tests/model/network/test_network.py"
LOOP = "tests/model/training/test_loop.py"
LAUNCH = "tests/model/training/test_launch.py"
PEERS = "tests/model/training/test_peers.py"
PREPARE = "tests/model/test_prepare.py"
FINETUNE = "tests/model/test_finetune.py"
PLAN_OF_DATES = f"{PREPARE}::test_a_plan_has_the_newest_dates_for_the_test_and_none_whose_labels_are_not_whole"
VOCABULARY_ENDS = (
    f"{PREPARE}::test_the_vocabulary_knows_what_had_happened_and_landed_when_the_last_training_labels_ended"
)
ALIKE = f"{PREPARE}::test_examples_of_two_kinds_are_refused_with_both_values_and_the_command_that_makes_them_alike"
LEFT_OUT = f"{PREPARE}::test_older_examples_of_other_settings_are_left_out_and_told_where_those_of_the_weeks_are_alike"
LINEAGE = "tests/model/data/test_lineage.py"
TOTAL = f"{LOSSES}::test_the_loss_is_that_of_the_next_category_and_a_part_of_the_others"
RECALL = f"{LOSSES}::test_recall_counts_a_label_with_at_most_four_categories_before_it"
PRETRAINING = f"{LOSSES}::test_pretraining_adds_up_the_item_and_the_category_of_each_next_event"
DATES_READ = f"{FINETUNE}::test_training_uses_all_rows_of_its_dates_and_no_others"
JUDGED = f"{FINETUNE}::test_what_decides_is_the_loss_of_the_next_category_on_the_validation_dates"
CARD = f"{FINETUNE}::test_the_numbers_of_a_card_are_those_of_the_validation_dates"
PHASES = f"{FINETUNE}::test_phases_stop_by_the_validation_and_take_as_many_steps_from_scratch"
TAUGHT = f"{FINETUNE}::test_the_heads_learn_first_and_then_what_the_next_category_comes_from"
GOLDEN = f"{FEATURES}::test_the_numbers_of_a_user_are_those_that_registered_models_were_trained_on"

MUTANTS = [
    # --- features: what registered models know by place ---
    Mutant(
        "features_profile_swap",
        "model/data/features.py",
        "                np.log1p(current),\n                np.log1p(week),",
        "                np.log1p(week),\n                np.log1p(current),",
        GOLDEN,
    ),
    Mutant("features_last_not_sqrt", "model/data/features.py", "np.sqrt(decayed),  # last", "decayed,  # last", GOLDEN),
    Mutant(
        "features_scalars_swap",
        "model/data/features.py",
        'usual = table["tenure_seconds"] / np.maximum(table["history_days_active"], 1)',
        'usual = table["recency_seconds"] / np.maximum(table["history_days_active"], 1)',
        GOLDEN,
    ),
    Mutant(
        "features_overdue_turned",
        "model/data/features.py",
        'days(table["recency_seconds"]) - days(usual)',
        'days(usual) - days(table["recency_seconds"])',
        GOLDEN,
    ),
    Mutant(
        "features_usual_shares_flat",
        "model/data/features.py",
        "return np.asarray(counts / counts.sum())",
        "return np.full(len(counts), 1 / len(counts))",
        GOLDEN,
    ),
    Mutant(
        "features_days_are_hours",
        "model/data/features.py",
        "np.maximum(seconds, 0) / 86_400)",
        "seconds / 3_600)",
        GOLDEN,
    ),
    Mutant(
        "features_gap_end_of_day",
        "model/data/features.py",
        ".astype(np.int64) + 1) * 86_400",
        ".astype(np.int64) + 2) * 86_400",
        f"{FEATURES}::test_times_are_put_into_buckets_of_half_a_doubling",
    ),
    Mutant(
        "features_profile_keeps_last",
        "model/data/features.py",
        'pad(rows[name], self.profile, kind, keep="first")',
        "pad(rows[name], self.profile, kind)",
        FEATURES,
    ),
    Mutant(
        "features_unknown_label_is_no",
        "model/data/features.py",
        ".fillna(-1.0)",
        ".fillna(0.0)",
        f"{FEATURES}::test_labels_that_are_not_known_are_minus_one",
    ),
    # --- input ---
    Mutant(
        "input_epoch_not_in_groups",
        "model/data/input.py",
        "random = np.random.default_rng([seed, epoch])",
        "random = np.random.default_rng([seed])",
        f"{INPUT}::test_row_groups_come_in_another_order_in_each_epoch_and_for_each_seed",
    ),
    Mutant(
        "input_window_seed_no_epoch",
        "model/data/input.py",
        "random = np.random.default_rng([*self.epoch.seeds, shard])",
        "random = np.random.default_rng([self.epoch.seeds[0], shard])",
        f"{INPUT}::test_rows_of_a_row_group_are_mixed_otherwise_in_each_epoch_and_shard_and_for_each_seed",
    ),
    Mutant(
        "input_window_seed_no_shard",
        "model/data/input.py",
        "random = np.random.default_rng([*self.epoch.seeds, shard])",
        "random = np.random.default_rng([*self.epoch.seeds])",
        f"{INPUT}::test_rows_of_a_row_group_are_mixed_otherwise_in_each_epoch_and_shard_and_for_each_seed",
    ),
    Mutant(
        "input_no_group_shuffle",
        "model/data/input.py",
        "groups = [self.row_groups[i] for i in random.permutation(len(self.row_groups))]",
        "groups = list(self.row_groups)",
        f"{INPUT}::test_row_groups_come_in_another_order_in_each_epoch_and_for_each_seed",
    ),
    Mutant(
        "input_drops_the_last_rows_of_an_evaluation",
        "model/data/input.py",
        "-(-self.rows // global_batch)",
        "max(1, self.rows // global_batch)",
        INPUT,
    ),
    Mutant(
        "input_filling_rows_count",
        "model/data/input.py",
        "real = self.begin + places < total",
        "real = self.begin + places < 2 * total",
        INPUT,
    ),
    # --- dates ---
    Mutant(
        "runplan_no_gap_before_validation",
        "model/training/plan.py",
        "train = [day for day in left if valid and day + horizon <= valid[0]]",
        "train = [day for day in left if valid and day < valid[0]]",
        "tests/model/training/test_plan.py",
    ),
    Mutant(
        "runplan_gap_minus_one",
        "model/training/plan.py",
        "left = [day for day in left if test and day + horizon <= test[0]]",
        "left = [day for day in left if test and day + horizon <= test[0] + timedelta(days=1)]",
        "tests/model/training/test_plan.py",
    ),
    Mutant(
        "runplan_gap_plus_one",
        "model/training/plan.py",
        "left = [day for day in left if test and day + horizon <= test[0]]",
        "left = [day for day in left if test and day + horizon < test[0]]",
        PLAN_OF_DATES,
    ),
    Mutant(
        "leak_prepare_labels_after_as_of",
        "model/prepare.py",
        "last = as_of - timedelta(days=config.horizon_days)",
        "last = as_of",
        PLAN_OF_DATES,
    ),
    Mutant(
        "prepare_labels_of_two_horizons",
        "model/prepare.py",
        '    days = alike(tables["examples"], tables["interests"], days, config, alike_from)\n',
        "",
        ALIKE,
    ),
    Mutant(
        "prepare_older_labels_of_another_horizon",
        "model/prepare.py",
        "            left_out.update(unlike)\n",
        "",
        LEFT_OUT,
    ),
    Mutant(
        "prepare_leaves_out_dates_of_its_weeks",
        "model/prepare.py",
        "alike_from is None or day >= alike_from",
        "alike_from is None or day > alike_from",
        LEFT_OUT,
    ),
    Mutant(
        "prepare_older_labels_are_not_learnt_from",
        "model/prepare.py",
        "return [day for day in days if day not in left_out]",
        "return [day for day in days if alike_from is None or day >= alike_from]",
        f"{PREPARE}::test_older_examples_of_the_same_settings_are_learnt_from",
    ),
    Mutant(
        "prepare_makes_all_again_with_late_events",
        "model/prepare.py",
        'bool(labels[day][0].counts.get("include_late")) == bool(flag)',
        "bool(flag)",
        f"{PREPARE}::test_each_date_is_to_be_made_again_as_it_was_made_with_late_events_or_without",
    ),
    Mutant(
        "lineage_migration_of_two_kinds",
        "model/data/lineage.py",
        '    "min_events": "MEANDER_MIN_EVENTS",\n',
        "",
        ALIKE,
    ),
    Mutant(
        "lineage_lookback_of_the_newest_interests",
        "model/data/lineage.py",
        'return settings_of_state(states, day, publish.inputs.get("interests"))',
        "return settings_of_state(states, day)",
        LINEAGE,
    ),
    Mutant(
        "lineage_oldest_publish",
        "model/data/lineage.py",
        "publish = labels[day][0]",
        "publish = labels[day][-1]",
        LINEAGE,
    ),
    Mutant(
        "lineage_refused_dates_count",
        "model/data/lineage.py",
        "            if day not in kept:\n",
        "            if day:\n",
        LINEAGE,
    ),
    Mutant(
        "leak_prepare_pretrains_on_every_date",
        "model/prepare.py",
        "pretrain=[day for day in days if day <= parts.valid[0] and users.get(day)]",
        "pretrain=[day for day in days if users.get(day)]",
        PLAN_OF_DATES,
    ),
    Mutant(
        "leak_prepare_vocabulary_until_as_of",
        "model/prepare.py",
        "until = plan.train[-1] + timedelta(days=plan.horizon_days)",
        "until = plan.as_of",
        VOCABULARY_ENDS,
    ),
    Mutant(
        "prepare_vocabulary_ends_with_the_last_training_date",
        "model/prepare.py",
        "until = plan.train[-1] + timedelta(days=plan.horizon_days)",
        "until = plan.train[-1]",
        VOCABULARY_ENDS,
    ),
    Mutant(
        "leak_prepare_vocabulary_of_what_landed_later",
        "model/prepare.py",
        "last=until, landed_by=until",
        "last=until",
        VOCABULARY_ENDS,
    ),
    Mutant(
        "prepare_rare_items_are_known",
        "model/prepare.py",
        '"item_id": 5, "category_id": 1',
        '"item_id": 1, "category_id": 1',
        VOCABULARY_ENDS,
    ),
    Mutant(
        "vocabulary_counts_deliveries",
        "model/data/build_vocabulary.py",
        '.select("event_id", F.col(field).alias("id")).distinct()',
        '.select("event_id", F.col(field).alias("id"))',
        "tests/model/data/test_build_vocabulary.py::test_ids_are_ordered_by_falling_frequency_then_key_and_each_event_counts_once",
    ),
    Mutant(
        "vocabulary_brings_spark_to_every_worker",
        "model/data/vocabulary.py",
        "from lake import storage\n",
        "from lake import storage\nfrom lake.table import Table\n",
        "tests/model/data/test_vocabulary.py::test_what_every_worker_of_a_training_imports_has_no_use_for_spark",
    ),
    Mutant(
        "vocabulary_warm_start_sorts_anew",
        "model/data/vocabulary.py",
        "np.concatenate([self.keys, keys[new]])",
        "np.concatenate([keys[new], self.keys])",
        "tests/model/data/test_vocabulary.py::test_a_warm_start_keeps_every_old_index_and_appends_what_is_new",
    ),
    Mutant(
        "frames_highest_users",
        "model/data/frames.py",
        'lowest = lowest[np.argsort(pd.util.hash_array(lowest), kind="stable")[:most]]',
        'lowest = lowest[np.argsort(pd.util.hash_array(lowest), kind="stable")][-most:]',
        "tests/model/data/test_frames.py",
    ),
    # --- pretraining and fine-tuning ---
    Mutant(
        "leak_pretrain_on_test",
        "model/pretrain.py",
        "        plan.pretrain,\n        list(SEQUENCE),",
        "        plan.pretrain + plan.test,\n        list(SEQUENCE),",
        DATES_READ,
    ),
    Mutant(
        "leak_finetune_trains_on_test",
        "model/finetune.py",
        "for days in (plan.train, plan.valid))",
        "for days in (plan.train + plan.test, plan.valid))",
        DATES_READ,
    ),
    Mutant(
        "leak_finetune_trains_on_validation",
        "model/finetune.py",
        "for days in (plan.train, plan.valid))",
        "for days in (plan.train + plan.valid, plan.valid))",
        DATES_READ,
    ),
    Mutant(
        "leak_finetune_stops_by_the_test",
        "model/finetune.py",
        "for days in (plan.train, plan.valid))",
        "for days in (plan.train, plan.test))",
        DATES_READ,
    ),
    Mutant(
        "finetune_stops_by_the_training",
        "model/finetune.py",
        "for days in (plan.train, plan.valid))",
        "for days in (plan.train, plan.train))",
        JUDGED,
    ),
    Mutant(
        "leak_finetune_card_of_test",
        "model/finetune.py",
        "plan.valid, STATE, most_users=MAX_USERS)",
        "plan.test, STATE, most_users=MAX_USERS)",
        CARD,
    ),
    Mutant(
        "finetune_card_of_training",
        "model/finetune.py",
        "plan.valid, STATE, most_users=MAX_USERS)",
        "plan.train, STATE, most_users=MAX_USERS)",
        CARD,
    ),
    Mutant(
        "finetune_begins_with_the_oldest",
        "model/finetune.py",
        "plan.train[-START_DATES:]",
        "plan.train[:START_DATES]",
        f"{FINETUNE}::test_scalars_are_measured_against_the_last_four_training_dates",
    ),
    Mutant(
        "finetune_keeps_the_worse_phase",
        "model/finetune.py",
        "results[phase].best_metric < results[best.phase].best_metric",
        "results[phase].best_metric > results[best.phase].best_metric",
        JUDGED,
    ),
    Mutant(
        "finetune_stops_by_all_losses",
        "model/finetune.py",
        'metric="next_category_loss", patience=3',
        "patience=3",
        PHASES,
    ),
    Mutant("finetune_never_stops_early", "model/finetune.py", ", patience=3)", ")", PHASES),
    Mutant(
        "finetune_scratch_gets_half_the_steps",
        "model/finetune.py",
        "epochs=2 * heads.epochs",
        "epochs=heads.epochs",
        PHASES,
    ),
    Mutant(
        "finetune_heads_teach_the_encoder",
        "model/finetune.py",
        "network.encoder.trainable = False",
        "network.encoder.trainable = True",
        TAUGHT,
    ),
    Mutant(
        "finetune_binary_learns_on", "model/finetune.py", "layer.trainable = False", "layer.trainable = True", TAUGHT
    ),
    Mutant(
        "finetune_starts_from_nothing",
        "model/finetune.py",
        'if start == "pretrained" and',
        'if start == "pretraining" and',
        TAUGHT,
    ),
    Mutant(
        "training_workers_start_workers",
        "model/training/common.py",
        'args.launcher == "process" or args.workers <= 1 or launch.in_worker()',
        'args.launcher == "process" or args.workers <= 1',
        "tests/model/training/test_common.py",
    ),
    Mutant(
        "training_few_steps",
        "model/training/common.py",
        "-(-least_steps // max(rows // batch, 1))",
        "max(1, least_steps // max(rows // batch, 1))",
        "tests/model/training/test_common.py",
    ),
    # --- losses ---
    Mutant(
        "loss_no_binary_total",
        "model/network/losses.py",
        "            total = total + self.binary_weight * ops.sum(loss * labelled)\n",
        "",
        TOTAL,
    ),
    Mutant(
        "loss_no_item_total",
        "model/network/losses.py",
        "        total = total + self.item_weight * item_sum\n",
        "",
        TOTAL,
    ),
    Mutant(
        "loss_no_category_total",
        "model/network/losses.py",
        "        total = ops.sum(per_user * labelled)\n",
        "        total = 0.0 * ops.sum(per_user * labelled)\n",
        TOTAL,
    ),
    Mutant(
        "loss_item_weight", "model/network/losses.py", "item_weight: float = 0.1", "item_weight: float = 1.0", TOTAL
    ),
    Mutant(
        "loss_pretrain_only_items",
        "model/network/losses.py",
        "return item_sum + category_sum, ops.sum(real), metrics",
        "return item_sum, ops.sum(real), metrics",
        PRETRAINING,
    ),
    Mutant(
        "loss_recall_le",
        "model/network/losses.py",
        'metrics["recall_at_5"] = (ops.sum(labelled * ops.cast(ahead < 5, "float32")), ops.sum(labelled))',
        'metrics["recall_at_5"] = (ops.sum(labelled * ops.cast(ahead <= 5, "float32")), ops.sum(labelled))',
        RECALL,
    ),
    Mutant(
        "loss_recall_counts_none",
        "model/network/losses.py",
        'out["category"][:, 1:] > true_logit',
        'out["category"] > true_logit',
        RECALL,
    ),
    Mutant(
        "loss_logq_missing_label",
        "model/network/losses.py",
        "corrected = true - log_inclusion(true_index, count, size)",
        "corrected = true",
        f"{LOSSES}::test_the_gradient_is_that_of_the_candidates",
    ),
    Mutant(
        "loss_filling_rows_count",
        "model/network/losses.py",
        'is_real(batch["behavior"])[:, 1:] * batch["weight"][:, None]',
        'is_real(batch["behavior"])[:, 1:]',
        PRETRAINING,
    ),
    # --- network ---
    Mutant(
        "network_sees_the_future",
        "model/network/layers.py",
        "y, attention = self.attend(y, y, use_causal_mask=True), None",
        "y, attention = self.attend(y, y, use_causal_mask=False), None",
        f"{NETWORK}::test_no_event_sees_a_later_one",
    ),
    Mutant(
        "network_profile_by_root",
        "model/network/layers.py",
        "real * values[..., -1] ** 2",
        "real * values[..., -1]",
        f"{NETWORK}::test_the_profile_is_read_as_the_mean_of_its_categories_by_share",
    ),
    Mutant(
        "network_padding_in_the_profile",
        "model/network/layers.py",
        "real * values[..., -1] ** 2",
        "values[..., -1] ** 2",
        f"{NETWORK}::test_the_profile_is_read_as_the_mean_of_its_categories_by_share",
    ),
    Mutant(
        "network_binary_teaches_the_encoder",
        "model/network/network.py",
        "ops.stop_gradient(lasting)",
        "lasting",
        f"{NETWORK}::test_binary_answers_teach_their_own_layers_alone",
    ),
    Mutant(
        "network_scalars_not_measured",
        "model/network/network.py",
        '(ops.cast(x["scalars"], "float32") - self.scalar_mean) / self.scalar_scale',
        '(ops.cast(x["scalars"], "float32") - self.scalar_mean)',
        f"{NETWORK}::test_the_binary_answers_begin_as_a_logistic_regression_on_the_known_labels",
    ),
    Mutant(
        "network_searches_come_again",
        "model/network/network.py",
        'weight * is_real(x["behavior"]) * is_real(x["item"])',
        'weight * is_real(x["behavior"])',
        f"{NETWORK}::test_an_item_comes_again_by_the_age_and_the_behavior_of_its_events",
    ),
    Mutant(
        "network_grown_forgets",
        "model/network/network.py",
        "values[: len(old_values)] = old_values",
        "pass",
        f"{NETWORK}::test_a_grown_network_says_the_same_of_what_it_knew",
    ),
    Mutant(
        "network_age_as_slow_as_any_weight",
        "model/network/network.py",
        "weight = REPEAT_RATE_SCALE * by_event + by_item",
        "weight = by_event + by_item",
        f"{NETWORK}::test_an_item_comes_again_by_the_age_and_the_behavior_of_its_events",
    ),
    Mutant(
        "network_category_comes_again_by_the_root",
        "model/network/network.py",
        'ops.cast(x["profile_values"], "float32")[..., -1] ** 2 * in_profile',
        'ops.cast(x["profile_values"], "float32")[..., -1] * in_profile',
        f"{NETWORK}::test_a_category_comes_again_by_its_long_term_share_beside_what_is_popular",
    ),
    Mutant(
        "network_item_weights_without_end",
        "model/network/network.py",
        'ops.exp(ops.minimum(ops.cast(weight, "float32")[..., 0] + REPEAT_LOGIT_START, REPEAT_LOGIT_MAX))',
        'ops.exp(ops.cast(weight, "float32")[..., 0] + REPEAT_LOGIT_START)',
        f"{NETWORK}::test_a_user_unlike_any_in_training_is_answered_in_numbers",
    ),
    Mutant(
        "network_category_weights_without_end",
        "model/network/network.py",
        "again = share * ops.exp(ops.minimum(scores, REPEAT_LOGIT_MAX))",
        "again = share * ops.exp(scores)",
        f"{NETWORK}::test_a_user_unlike_any_in_training_is_answered_in_numbers",
    ),
    # --- loop ---
    Mutant(
        "loop_keeps_the_last",
        "model/training/loop.py",
        "_assign(self.task.model.variables, self.best)",
        "pass",
        f"{LOOP}::test_the_best_weights_are_kept_and_patience_ends_a_training",
    ),
    Mutant(
        "loop_patience_one_more",
        "model/training/loop.py",
        "waiting >= config.patience",
        "waiting > config.patience",
        f"{LOOP}::test_the_best_weights_are_kept_and_patience_ends_a_training",
    ),
    Mutant(
        "loop_everything_decays",
        "model/training/loop.py",
        "if len(variable.shape) < 2]",
        "if len(variable.shape) < 1]",
        f"{LOOP}::test_weights_of_one_dimension_do_not_decay",
    ),
    Mutant(
        "loop_resumes_another",
        "model/training/loop.py",
        'checkpoint.state["fingerprint"] == self.progress.fingerprint',
        "checkpoint.state",
        f"{LOOP}::test_the_checkpoint_of_another_training_is_not_resumed",
    ),
    Mutant(
        "loop_same_order_in_each_epoch",
        "model/training/loop.py",
        "            progress.epoch, config.global_batch,",
        "            0, config.global_batch,",
        f"{LOOP}::test_each_epoch_takes_the_rows_in_another_order",
    ),
    Mutant(
        "loop_mean_of_batches",
        "model/training/loop.py",
        "total[1] += float(weight)",
        "total[1] += 1.0",
        f"{LOOP}::test_a_validation_counts_each_row_once",
    ),
    Mutant(
        "loop_optimizer_not_in_the_checkpoint",
        "model/training/loop.py",
        "return [*self.task.model.variables, *self.optimizer.variables]",
        "return [*self.task.model.variables]",
        f"{LOOP}::test_a_training_that_died_ends_where_an_undisturbed_one_does",
    ),
    Mutant(
        "checkpoint_points_before_it_is_whole",
        "model/training/checkpoint.py",
        "    fs, inner = storage.filesystem(storage.join(folder, name))\n    fs.makedirs(inner, exist_ok=True)\n",
        '    storage.write_json(storage.join(folder, "current.json"), {"step": name})\n'
        "    fs, inner = storage.filesystem(storage.join(folder, name))\n    fs.makedirs(inner, exist_ok=True)\n",
        "tests/model/training/test_checkpoint.py",
    ),
    # --- launcher ---
    Mutant(
        "launch_others_run_on",
        "model/training/launch.py",
        '                failed = "" if peer.recv(1) else ENDED\n',
        '                failed = "" if peer.recv(1) else ""\n',
        f"{LAUNCH}::test_when_one_worker_fails_the_others_end_and_it_is_named",
    ),
    Mutant(
        "launch_names_the_one_that_was_ended",
        "model/training/launch.py",
        "explains = {ENDED: 2, LOST: 1}",
        "explains = {ENDED: 1, LOST: 2}",
        f"{LAUNCH}::test_the_failure_that_explains_the_others_is_the_one_that_is_named",
    ),
    Mutant(
        "launch_worker_outlives_its_launcher",
        "model/training/launch.py",
        "    os.read(0, 1)\n    os._exit(1)\n",
        "    os.read(0, 1)\n",
        f"{LAUNCH}::test_workers_end_when_the_launcher_is_killed",
    ),
    Mutant(
        "launch_tasks_listen_everywhere",
        "model/training/launch.py",
        "    lifeline = _bound(host)\n",
        '    lifeline = _bound("")\n',
        f"{LAUNCH}::test_the_tasks_listen_only_on_the_addresses_of_their_machines",
    ),
    Mutant(
        "launch_whoever_calls_is_a_task",
        "model/training/launch.py",
        "hmac.compare_digest(received, key.encode())",
        "len(received) == len(key)",
        f"{LAUNCH}::test_who_does_not_know_the_key_is_no_task_of_the_stage",
    ),
    Mutant(
        "launch_worker_gets_the_whole_environment",
        "model/training/launch.py",
        '**environment_of("worker", os.environ), **env',
        "**os.environ, **env",
        f"{LAUNCH}::test_a_worker_gets_what_trains_and_no_other_password",
    ),
    Mutant(
        "launch_pickles_the_registrys_password",
        "lake/environment.py",
        'is_secret = "@" in registry.netloc or bool(registry.query)',
        "is_secret = False",
        f"{LAUNCH}::test_a_pickled_task_has_our_settings_and_no_password",
    ),
    Mutant(
        "peers_neighbours_are_admitted",
        "model/training/peers.py",
        "(EQUAL, 0, 7 - 2 * word,",
        "(EQUAL, 0, 6 - 2 * word,",
        PEERS,
    ),
    Mutant(
        "peers_guard_after_the_server_is_ready",
        "model/training/peers.py",
        "    guard.start()\n    try:\n        yield\n    finally:\n",
        "    try:\n        yield\n    finally:\n        guard.start()\n",
        f"{PEERS}::test_the_door_closes_while_the_server_still_waits_for_the_others",
    ),
    Mutant(
        "peers_quick_stranger_stays",
        "model/training/peers.py",
        "    if strangers:\n",
        "    if len(strangers) > 1:\n",
        f"{PEERS}::test_a_stranger_who_was_quicker_ends_the_training",
    ),
]
