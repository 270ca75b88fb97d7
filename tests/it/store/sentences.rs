//! Every sentence of the store's docs, and the tests that hold it to its word.
//!
//! What `Error::Backend` leaves behind is one test for all: `a_database_that_stays_locked_is_an_error_and_nothing_of_what_was_asked_is_stored`,
//! so a sentence that begins with it stands here only where it promises more.

use std::collections::BTreeSet;
use std::path::Path;

/// A method, how a sentence of its docs begins, and its tests.
const SENTENCES: &[(&str, &str, &[&str])] = &[
    ("open", "Opens the database", &["the_folder_is_made_private_and_two_may_migrate_at_once"]),
    ("open", "[`Error::Unusable`]", &["a_newer_schema_is_refused_and_untouched", "another_programs_file_is_refused"]),
    ("close", "Commits what was sent", &["what_was_acknowledged_is_there_after_closing"]),
    ("enqueue", "Inserts jobs, all", &["enqueueing_is_all_or_nothing", "the_same_wish_within_a_call_is_one_job"]),
    (
        "enqueue",
        "For each: the new",
        &["an_equal_job_that_waits_stands_for_a_new_one", "a_key_names_one_job_for_ever", MODEL],
    ),
    (
        "enqueue",
        "An equal one takes",
        &[
            "an_equal_job_that_waits_stands_for_a_new_one",
            "a_job_that_waits_for_a_retry_takes_the_earlier_time",
            "asking_again_for_what_waits_makes_it_the_newest_wish",
            "an_equal_request_is_on_record_and_older_than_what_comes_after",
        ],
    ),
    ("enqueue", "Durable when", &["what_was_acknowledged_is_there_after_closing"]),
    (
        "enqueue",
        "A call that is",
        &[
            "a_call_that_breaks_a_rule_of_the_database_fails_alone",
            "a_call_with_a_known_key_and_other_content_fails_alone",
        ],
    ),
    ("enqueue", "[`Error::KeyConflict`]", &["a_key_names_one_job_for_ever"]),
    ("enqueue", "[`Error::Invalid`] when a key", &["a_key_is_as_long_as_the_database_takes"]),
    ("key_add", "Writes a key", &["a_key_is_kept_as_it_was_made_and_revoked_once"]),
    ("key_add", "Durable when", &["what_was_acknowledged_is_there_after_closing"]),
    ("keys", "The keys", &["a_key_is_kept_as_it_was_made_and_revoked_once"]),
    ("key_revoke", "Revokes", &["a_key_is_kept_as_it_was_made_and_revoked_once"]),
    ("key_revoke", "Returns how", &["a_key_is_kept_as_it_was_made_and_revoked_once"]),
    ("call_add", "Writes down", &["calls_stay_on_record_until_they_are_removed_with_a_record"]),
    ("call_add", "Durable when", &["what_was_acknowledged_is_there_after_closing"]),
    ("calls_prune", "Removes calls", &["calls_stay_on_record_until_they_are_removed_with_a_record"]),
    ("calls_prune", "Returns how", &["calls_stay_on_record_until_they_are_removed_with_a_record"]),
    ("events_after", "The history", &["the_history_of_all_jobs_is_read_in_pieces"]),
    ("events_after", "On PostgreSQL", &["the_history_of_all_jobs_is_read_in_pieces"]),
    ("credential_put", "Stores a sealed", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("credential_put", "Durable when", &["what_was_acknowledged_is_there_after_closing"]),
    ("credential_put", "Its times", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("credentials", "The credentials", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("credential_remove", "Removes the", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("credential_remove", "False: there", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("credential_reseal", "Stores a credential", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("credential_reseal", "False: somebody", &["a_registry_has_one_credential_and_its_history_stays"]),
    ("load_number", "The number", &["an_interrupted_load_goes_on_and_a_finished_one_is_a_new_request"]),
    ("load_finished", "Marks", &["an_interrupted_load_goes_on_and_a_finished_one_is_a_new_request"]),
    ("load_finished", "Doing it twice", &["an_interrupted_load_goes_on_and_a_finished_one_is_a_new_request"]),
    ("waiting", "What there is", &["a_bare_insert_is_a_job", "a_time_to_come_is_waited_for", MODEL]),
    ("waiting", "Reads only", &["a_lock_held_by_somebody_else_is_waited_for"]),
    ("waiting", "[`Error::Outdated`]", &["a_schema_that_becomes_newer_is_said_by_the_next_look"]),
    ("busy", "Something is", &["a_paused_queue_gives_nothing_and_a_queue_can_be_chosen", MODEL]),
    ("busy", "Jobs that were", &["a_time_to_come_is_waited_for", MODEL]),
    ("was_asked", "True once when", &["who_asked_is_said_once_where_a_look_costs"]),
    ("was_asked", "Always false", &["who_asked_is_said_once_where_a_look_costs"]),
    ("last_event", "The newest", &["failures_since_a_moment_are_counted_whoever_had_the_job"]),
    ("failed_since", "How many", &["failures_since_a_moment_are_counted_whoever_had_the_job"]),
    ("due", "Makes scheduled", &["what_is_due_becomes_pending_in_batches_until_nothing_is", MODEL]),
    ("due", "Returns how", &["what_is_due_becomes_pending_in_batches_until_nothing_is"]),
    (
        "intake",
        "Parses rows",
        &["a_bare_insert_is_a_job", "a_bare_row_that_does_not_parse_fails_with_the_reason", MODEL],
    ),
    ("claim", "Takes pending", &["a_claim_takes_the_best_and_raises_attempt_and_epoch", MODEL]),
    (
        "claim",
        "At most one",
        &[
            "one_target_is_claimed_once_by_all_who_ask_at_once",
            "limits_hold_when_many_ask_at_once",
            "a_queue_runs_at_most_its_limit_and_others_as_many_as_they_have",
            "a_registry_is_written_by_so_many_jobs_on_all_workers_together",
            MODEL,
        ],
    ),
    (
        "claim",
        "Best first is",
        &["thousands_of_rows_that_may_not_run_hide_nothing", "the_best_of_many_pairs_of_queue_and_registry_come_first"],
    ),
    ("claim", "[`Error::Backend`]; then", &[LOCKED]),
    // Advice to callers.
    ("claim", "Do not drop", &[]),
    ("stand", "Leaves a claim", &["the_next_enqueue_does_the_claim_that_was_left_behind", STANDING]),
    ("stand", "The next enqueue", &["the_next_enqueue_does_the_claim_that_was_left_behind", STANDING]),
    (
        "stand",
        "It is done once",
        &[
            "the_next_enqueue_does_the_claim_that_was_left_behind",
            "what_a_claim_that_was_left_behind_waits_for_does_not_hold_the_enqueue_up",
        ],
    ),
    ("stand", "Jobs that come", &["the_next_enqueue_does_the_claim_that_was_left_behind"]),
    (
        "intake_and_claim",
        "As [`Store::intake`]",
        &[
            "rows_by_plain_sql_are_taken_in_and_claimed_in_one_call",
            "rows_that_are_all_good_are_claimed_with_their_intake_once_each",
            "a_row_that_only_the_database_refuses_does_not_hold_up_the_others",
            MODEL,
        ],
    ),
    ("intake_and_claim", "As [`Store::claim`]", &["nothing_is_claimed_from_a_newer_schema_and_what_runs_is_finished"]),
    (
        "renew",
        "The lease holds",
        &["renewing_raises_the_beat_and_writes_progress", "an_old_epoch_changes_nothing", MODEL],
    ),
    // Promises nothing.
    ("renew", "[`Error::Backend`]; then", &[]),
    (
        "confirm",
        "As [`Store::renew`]",
        &[
            "a_tag_never_goes_back_to_an_older_job",
            "a_result_that_is_taken_back_or_removed_stands_before_older_jobs",
            "an_operators_retry_of_a_job_that_waits_makes_it_the_newest_wish",
            "an_old_epoch_changes_nothing",
            MODEL,
        ],
    ),
    ("is_in_order", "Writes take effect", &["a_claim_that_is_sent_behind_an_end_finds_its_place_free"]),
    ("settle", "Ends the attempt", &["a_failed_attempt_waits_and_one_given_back_is_refunded", MODEL]),
    (
        "settle",
        "The job's state",
        &["the_end_of_an_attempt_is_one_transaction_with_its_event_and_transfers", "an_old_epoch_changes_nothing"],
    ),
    ("settle", "A cancel that", &["a_cancel_ends_what_waits_and_asks_what_runs", MODEL]),
    ("settle", "[`Unsettled`]", &[LOCKED]),
    ("cancel_asked", "Running jobs", &["a_cancel_ends_what_waits_and_asks_what_runs", MODEL]),
    ("temp_register", "Registers", &["temporary_files_are_known_by_worker_until_they_are_forgotten"]),
    ("temp_register", "Durable", &["files_of_dead_workers_go_and_those_of_living_ones_stay"]),
    ("temp_register", "[`Error::Invalid`]", &["claims_and_ends_do_not_suffer_from_a_rare_operation_that_is_refused"]),
    ("temp_forget", "Forgets", &["temporary_files_are_known_by_worker_until_they_are_forgotten"]),
    ("temp_files_of", "Registered", &["temporary_files_are_known_by_worker_until_they_are_forgotten"]),
    ("temp_workers", "Workers that", &["temporary_files_are_known_by_worker_until_they_are_forgotten"]),
    (
        "upload_take",
        "Takes the turn",
        &["one_attempt_has_the_turn_until_it_is_over", "an_attempt_that_is_over_gets_no_turn_and_notes_nothing"],
    ),
    ("upload_take", "What an attempt", &["one_attempt_has_the_turn_until_it_is_over"]),
    ("upload_note", "Notes how far", &["one_attempt_has_the_turn_until_it_is_over"]),
    (
        "upload_note",
        "False when",
        &["one_attempt_has_the_turn_until_it_is_over", "an_attempt_that_is_over_gets_no_turn_and_notes_nothing"],
    ),
    ("upload_end", "Ends the caller's", &["one_attempt_has_the_turn_until_it_is_over"]),
    ("upload_end", "Another's turn", &["one_attempt_has_the_turn_until_it_is_over"]),
    ("blobs_seen", "Where blobs", &["blobs_are_seen_where_attempts_brought_them_until_they_are_lost"]),
    ("blobs_lost", "Forgets that", &["blobs_are_seen_where_attempts_brought_them_until_they_are_lost"]),
    ("registry_profile", "The profile that", &["what_a_registry_has_shown_is_remembered"]),
    ("registry_shown", "Remembers the", &["what_a_registry_has_shown_is_remembered"]),
    ("ledger_trim", "Forgets uploads", &["what_is_old_is_forgotten_in_pieces"]),
    ("ledger_trim", "Returns how", &["what_is_old_is_forgotten_in_pieces"]),
    ("job", "A job", &["an_id_that_does_not_exist_is_named_and_nothing_is_changed"]),
    ("jobs", "Jobs that match", &["lists_filter_and_page"]),
    ("events", "The history", &["an_id_that_does_not_exist_is_named_and_nothing_is_changed", MODEL]),
    ("queue_paused", "Nothing is", &["a_paused_queue_gives_nothing_and_a_queue_can_be_chosen"]),
    ("stats", "Numbers", &["stats_count_states_ages_and_the_last_hour", MODEL]),
    ("cancel", "Waiting jobs", &["a_cancel_ends_what_waits_and_asks_what_runs", MODEL]),
    (
        "cancel",
        "Returns how",
        &["a_cancel_ends_what_waits_and_asks_what_runs", "filters_mean_the_jobs_that_are_there_now"],
    ),
    ("cancel", "[`Error::NotFound`]", &["an_id_that_does_not_exist_is_named_and_nothing_is_changed"]),
    (
        "retry",
        "Finished jobs",
        &["an_operators_retry_is_a_new_generation", "paused_jobs_can_be_retried_and_cancelled", MODEL],
    ),
    (
        "retry",
        "All count",
        &[
            "an_operators_retry_of_a_job_that_waits_makes_it_the_newest_wish",
            "a_request_is_newer_than_all_that_retention_removed",
        ],
    ),
    ("retry", "Returns how", &["filters_mean_the_jobs_that_are_there_now", MODEL]),
    ("retry", "[`Error::NotFound`]", &["an_id_that_does_not_exist_is_named_and_nothing_is_changed"]),
    ("queues", "Queues that", &["queues_are_those_with_a_row_or_unfinished_jobs", MODEL]),
    ("queue_change", "Pauses, resumes", &["what_runs_goes_on_when_a_limit_falls_or_the_queue_is_paused", MODEL]),
    ("queue_change", "False when", &["a_change_of_a_queue_is_recorded_and_one_that_changes_nothing_is_not", MODEL]),
    ("queue_change", "The change", &["a_change_of_a_queue_is_recorded_and_one_that_changes_nothing_is_not"]),
    ("queue_change", "[`Error::Invalid`]", &["names_and_limits_that_cannot_be_are_refused"]),
    ("edit", "Changes waiting", &["an_edit_changes_what_waits_and_each_change_is_an_event", MODEL]),
    ("edit", "Returns how", &["an_edit_changes_what_waits_and_each_change_is_an_event", MODEL]),
    (
        "edit",
        "[`Error::NotFound`]",
        &["an_edit_that_cannot_be_changes_nothing", "an_id_that_does_not_exist_is_named_and_nothing_is_changed"],
    ),
    (
        "pause",
        "Holds waiting",
        &["a_paused_job_is_held_back_until_it_is_resumed", "paused_jobs_can_be_retried_and_cancelled"],
    ),
    ("pause", "Returns how", &["a_paused_job_is_held_back_until_it_is_resumed", MODEL]),
    ("pause", "[`Error::NotFound`]", &["an_id_that_does_not_exist_is_named_and_nothing_is_changed"]),
    ("resume", "Lets paused", &["a_job_that_is_resumed_before_its_time_waits_for_it", MODEL]),
    ("resume", "Returns how", &["a_paused_job_is_held_back_until_it_is_resumed", MODEL]),
    ("resume", "[`Error::NotFound`]", &["an_id_that_does_not_exist_is_named_and_nothing_is_changed"]),
    ("why", "What decides", &["why_says_what_decides", "why_counts_the_workers_that_serve_the_queue_and_live", MODEL]),
    ("tend", "Has the database", &["rows_that_are_gone_are_vacuumed_when_they_are_many"]),
    ("tend", "Then true", &["rows_that_are_gone_are_vacuumed_when_they_are_many"]),
    ("tend", "SQLite keeps itself", &["tending_a_small_database_does_nothing"]),
    ("tend", "[`Error::Backend`]; nothing", &[LOCKED]),
    (
        "prune",
        "Removes at most",
        &[
            "a_batch_is_bounded_and_the_oldest_go_first",
            "a_job_goes_with_its_history_and_the_record_stays",
            "keys_outlive_their_jobs_and_go_after_their_own_time",
            "only_what_is_finished_and_old_enough_is_removed_and_each_kind_has_its_time",
            "nobody_removes_history_in_another_way",
        ],
    ),
    ("prune", "One short", &["a_batch_is_bounded_and_the_oldest_go_first"]),
    ("prune", "A job that", &["a_job_that_is_retried_meanwhile_stays"]),
    ("prune", "[`Error::Backend`]; then", &[LOCKED]),
    ("prunable", "What [`Store::prune`]", &["what_would_be_removed_is_what_is_removed"]),
    ("prunable", "Reads only", &["what_would_be_removed_is_what_is_removed"]),
    ("remark", "Writes a", &["a_late_tag_is_on_record_and_changes_nothing_else"]),
    ("remark", "It changes", &["a_late_tag_is_on_record_and_changes_nothing_else"]),
    ("published", "What the newest", &["the_newest_completed_job_says_what_a_target_must_name"]),
    // True or false by kind of database.
    ("is_local", "The database", &[]),
    ("backup", "Writes a", &["a_backup_is_a_database_of_its_own_and_overwrites_nothing"]),
    ("backup", "All that was", &["a_backup_is_a_database_of_its_own_and_overwrites_nothing"]),
    (
        "backup",
        "On return it",
        &["a_backup_is_a_database_of_its_own_and_overwrites_nothing", "a_backup_that_cannot_be_written_leaves_nothing"],
    ),
    ("backup", "[`Error::Backend`] when it cannot", &["a_backup_that_cannot_be_written_leaves_nothing"]),
    ("backup", "[`Error::Invalid`]", &["a_backup_is_a_database_of_its_own_and_overwrites_nothing"]),
    (
        "invalidate",
        "Makes a database",
        &[
            "a_restored_database_gives_nothing_to_workers_of_the_lost_time",
            "epochs_jump_in_a_restore_alone_and_restores_are_on_record",
            MODEL,
        ],
    ),
    ("invalidate", "[`Error::Backend`]; then", &[LOCKED]),
    ("worker_start", "Makes a worker", &["a_workers_row_stays_while_it_has_jobs"]),
    // The caller's duty; `Presence` does it.
    ("worker_start", "Its lock", &["a_dead_workers_jobs_come_back_at_once_by_proof"]),
    ("worker_seen", "A worker says", &["a_workers_row_stays_while_it_has_jobs"]),
    ("worker_seen", "False when", &["a_workers_row_stays_while_it_has_jobs"]),
    ("worker_gone", "Removes a", &["a_workers_row_stays_while_it_has_jobs"]),
    ("worker_gone", "True when", &["a_workers_row_stays_while_it_has_jobs"]),
    ("workers", "All workers", &["a_workers_row_stays_while_it_has_jobs"]),
    ("leases", "The leases", &["renewing_raises_the_beat_and_writes_progress", MODEL]),
    ("reclaim", "Takes a job", &["an_old_epoch_changes_nothing", MODEL]),
    (
        "reclaim",
        "The job is",
        &[
            "deaths_without_progress_are_counted_and_progress_forgives",
            "a_cancel_that_was_asked_for_is_done_by_the_sweeper",
            "a_job_that_kills_its_workers_waits_between_tries_and_ends_as_poison",
            MODEL,
        ],
    ),
    ("reclaim", "None when", &["two_sweepers_reclaim_a_job_once", MODEL]),
    ("info", "Facts about", &["check_finds_what_does_not_fit"]),
    (
        "check",
        "Checks the database",
        &[
            "a_row_that_its_history_does_not_explain_is_found",
            "a_history_that_contradicts_itself_is_found",
            "what_cannot_be_read_is_found_and_hides_nothing_else",
            "two_running_jobs_for_one_target_are_found",
            "check_finds_what_does_not_fit",
        ],
    ),
    ("check", "Each job is", &["many_jobs_are_checked_page_by_page_while_others_work"]),
    ("check", "Empty when", &["many_jobs_are_checked_page_by_page_while_others_work", MODEL]),
    ("check", "Read-only", &["many_jobs_are_checked_page_by_page_while_others_work"]),
    ("query", "Runs one", &["somebody_elses_query_reads_and_never_writes"]),
    ("query", "[`Error::Invalid`]", &["somebody_elses_query_reads_and_never_writes"]),
    ("changed", "Returns when", &["commits_of_others_are_noticed"]),
    ("changed", "Each clone", &["each_clone_is_told_of_every_commit"]),
    ("changed", "Noticed within", &["commits_of_others_are_noticed"]),
    ("changed", "Safe to drop", &["commits_of_others_are_noticed"]),
    ("is_closed", "Nothing can", &["what_was_acknowledged_is_there_after_closing"]),
    ("batch_add", "Writes a batch", &["a_batch_is_written_down_once_with_the_job_that_lists_it"]),
    ("batch_add", "Returns that job", &["a_batch_is_written_down_once_with_the_job_that_lists_it"]),
    ("batch_add", "A batch of", &["a_batch_is_written_down_once_with_the_job_that_lists_it"]),
    ("batches", "Batches, newest first", &["batches_are_listed_newest_first_page_by_page"]),
    ("batch_rules", "What is to", &["the_rules_of_a_mirror_are_said_once"]),
    ("batch_rules_say", "Says what is", &["the_rules_of_a_mirror_are_said_once"]),
    ("batch_rules_say", "False when the", &["the_rules_of_a_mirror_are_said_once"]),
    ("batch_take", "Makes copies of", &["copies_are_made_once_under_the_fence"]),
    ("batch_take", "[`Error::Backend`];", &[LOCKED]),
    ("batch_take", "None when the", &["copies_are_made_once_under_the_fence"]),
    (
        "batch_listed",
        "Writes down what",
        &["what_became_of_repositories_is_written_down_and_changes_when_they_are_listed_again"],
    ),
    (
        "batch_listed",
        "False when the",
        &["what_became_of_repositories_is_written_down_and_changes_when_they_are_listed_again"],
    ),
    (
        "batch_repositories",
        "What became of",
        &["what_became_of_repositories_is_written_down_and_changes_when_they_are_listed_again"],
    ),
    ("batch_waiting", "Jobs of a", &["jobs_of_a_batch_that_may_be_claimed_are_told_and_when_it_is_over"]),
    ("batch_waiting", "Best first, at", &["jobs_of_a_batch_that_may_be_claimed_are_told_and_when_it_is_over"]),
    ("batch_busy", "Some job of", &["jobs_of_a_batch_that_may_be_claimed_are_told_and_when_it_is_over"]),
    ("batch_hide", "Takes a batch", &["a_hidden_batch_is_in_no_list"]),
    ("batch_hide", "False: it", &["a_hidden_batch_is_in_no_list"]),
    ("batch_hide", "Its jobs stay", &["a_hidden_batch_is_in_no_list"]),
    ("batch_stop", "Has nothing more", &["a_batch_that_was_called_off_takes_no_more_until_it_goes_on"]),
    ("batch_stop", "False: it", &["a_batch_that_was_called_off_takes_no_more_until_it_goes_on"]),
    ("batch_stop", "Its jobs are", &["a_batch_that_was_called_off_takes_no_more_until_it_goes_on"]),
    ("schedule_add", "Writes a schedule", &["a_schedule_that_was_written_down_is_read_back_and_its_name_is_taken"]),
    ("schedule_add", "None: there", &["a_schedule_that_was_written_down_is_read_back_and_its_name_is_taken"]),
    ("schedules", "The schedules, by", &["a_schedule_that_was_written_down_is_read_back_and_its_name_is_taken"]),
    ("schedule_change", "Pauses, resumes", &["a_schedule_is_paused_resumed_and_removed_and_its_history_stays"]),
    ("schedule_change", "False: it", &["a_schedule_is_paused_resumed_and_removed_and_its_history_stays"]),
    ("schedule_change", "None: there", &["a_schedule_is_paused_resumed_and_removed_and_its_history_stays"]),
    (
        "schedules_due",
        "Schedules whose",
        &["a_time_makes_one_job_and_the_next_one_is_waited_for", "many_that_are_due_at_once_are_all_fired"],
    ),
    ("schedules_fire", "Moves schedules", &["a_time_makes_one_job_and_the_next_one_is_waited_for"]),
    (
        "schedules_fire",
        "A schedule that",
        &["two_that_saw_the_same_fire_it_once", "a_time_that_was_dealt_with_stays_so_when_the_clock_goes_back"],
    ),
    ("schedules_fire", "Returns the", &["two_that_saw_the_same_fire_it_once"]),
    (
        "schedules_fire",
        "[`Error::Backend`];",
        &["a_database_that_stays_locked_is_an_error_and_nothing_of_what_was_asked_is_stored"],
    ),
    ("schedule_occurrences", "What became", &["a_time_makes_one_job_and_the_next_one_is_waited_for"]),
    ("schedule_older", "Jobs of a", &["what_the_last_run_stands_in_the_way_of"]),
];

const STANDING: &str = "many_who_enqueue_and_many_claims_left_behind_give_each_job_once";
const MODEL: &str = "random_commands_do_what_the_model_does";
const LOCKED: &str = "a_database_that_stays_locked_is_an_error_and_nothing_of_what_was_asked_is_stored";

/// Methods of the store with the sentences of their docs.
fn sentences() -> Vec<(String, String)> {
    let read = |file: &str| {
        let source =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store").join(file)).unwrap();
        source.split_once("impl Store {").expect("the store has methods").1.to_owned()
    };
    let methods = [read("mod.rs"), read("batch.rs"), read("api.rs"), read("vault.rs")].concat();
    let (mut sentences, mut docs) = (Vec::new(), String::new());
    for line in methods.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            let doc = doc.trim();
            let heading = doc.is_empty() || doc.starts_with('#');
            docs.push_str(if heading { ". " } else { doc });
            docs.push(' ');
        } else if let Some(name) = line.split("fn ").nth(1).filter(|_| line.starts_with("pub ")) {
            let name = name.split('(').next().unwrap_or_default();
            let parts = docs.split(". ").map(str::trim).filter(|part| !part.is_empty());
            sentences.extend(parts.map(|part| (name.to_owned(), part.trim_end_matches('.').to_owned())));
            docs.clear();
        }
    }
    sentences
}

/// Names of the tests of this folder.
fn tests() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/store");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let after = text.split("test]\n").skip(1).filter_map(|rest| rest.split("fn ").nth(1));
            names.extend(after.filter_map(|rest| rest.split('(').next()).map(str::to_owned));
        }
    }
    names
}

#[test]
fn every_sentence_of_the_docs_has_its_tests() {
    let (sentences, tests) = (sentences(), tests());
    assert!(sentences.len() > 100, "the docs were not found: {sentences:?}");
    for (method, sentence) in &sentences {
        let rows: Vec<_> =
            SENTENCES.iter().filter(|(of, begins, _)| of == method && sentence.starts_with(begins)).collect();
        let plain = sentence == "[`Error::Backend`]";
        assert!(plain || !rows.is_empty(), "no test is named for this sentence of Store::{method}: {sentence}");
        assert!(rows.len() <= 1, "Store::{method}: {sentence} stands here twice");
    }
    for (method, begins, named) in SENTENCES {
        let stands = sentences.iter().any(|(of, sentence)| of == method && sentence.starts_with(begins));
        assert!(stands, "Store::{method} has no sentence any more that begins with: {begins}");
        for test in *named {
            assert!(tests.contains(*test), "Store::{method}: there is no test {test}");
        }
    }
}
