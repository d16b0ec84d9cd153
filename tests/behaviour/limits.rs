//! Every limit has a test that reaches it. This file lists these tests, and fails for a limit
//! without one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use herd_testkit::herd::server_command;

/// A limit, and the test that reaches it: the file in `tests`, and the name of the test.
const REACHED_BY: [(&str, &str, &str); 59] = [
    (
        "max_clients",
        "behaviour/crowds.rs",
        "more_clients_than_allowed_are_refused",
    ),
    (
        "max_clients_per_address",
        "behaviour/crowds.rs",
        "more_clients_from_one_address_than_allowed_are_refused",
    ),
    (
        "max_unidentified",
        "behaviour/proxy.rs",
        "connections_without_a_header_are_few_and_keep_no_other_out",
    ),
    (
        "proxy_header_ms",
        "behaviour/proxy.rs",
        "a_header_has_a_deadline_and_a_byte_wins_no_time",
    ),
    (
        "proxy_header_bytes",
        "behaviour/proxy.rs",
        "a_listed_address_without_a_header_is_refused_and_told_so",
    ),
    (
        "keepalive_ms",
        "networks/vanished.rs",
        "a_client_whose_machine_vanished_is_let_go",
    ),
    (
        "max_records",
        "behaviour/crowds.rs",
        "more_records_than_allowed_are_refused",
    ),
    (
        "new_names_per_address",
        "behaviour/names.rs",
        "an_address_that_introduces_too_many_clients_is_refused_more_and_others_are_not",
    ),
    (
        "new_names_ms",
        "behaviour/names.rs",
        "an_address_may_introduce_clients_again_when_its_share_has_come_back",
    ),
    (
        "record_ttl_ms",
        "behaviour/expiry.rs",
        "a_record_expires_on_every_server_and_does_not_come_back_after_a_start",
    ),
    (
        "max_record_bytes",
        "behaviour/limits_clients.rs",
        "a_table_that_is_full_by_count_or_by_bytes_is_told_seldom_however_often_it_refuses",
    ),
    (
        "unpacked_records",
        "behaviour/limits_clients.rs",
        "clients_that_move_are_told_of_right_however_few_are_kept_unpacked",
    ),
    (
        "accept_backlog",
        "behaviour/limits_clients.rs",
        "as_many_may_knock_as_the_backlog_holds_and_each_is_served",
    ),
    (
        "line_ms",
        "behaviour/framing.rs",
        "a_line_that_is_never_finished_is_given_up",
    ),
    (
        "tls_handshake_ms",
        "behaviour/tls.rs",
        "a_handshake_has_a_deadline",
    ),
    (
        "tls_handshake_bytes",
        "behaviour/hostile_clients_tls.rs",
        "a_handshake_has_so_many_bytes_and_no_more",
    ),
    (
        "tls_handshake_records",
        "behaviour/tls_records.rs",
        "a_handshake_has_so_many_records_and_no_more",
    ),
    (
        "buffer_bytes",
        "behaviour/buffers.rs",
        "clients_that_never_read_are_closed_and_everybody_else_is_served",
    ),
    (
        "output_high_bytes",
        "behaviour/limits_clients.rs",
        "output_marks_stop_a_client_s_commands_and_let_them_go_on",
    ),
    (
        "output_low_bytes",
        "behaviour/limits_clients.rs",
        "output_marks_stop_a_client_s_commands_and_let_them_go_on",
    ),
    (
        "output_stall_ms",
        "behaviour/crowds.rs",
        "one_that_does_not_read_for_too_long_is_cut_off",
    ),
    (
        "linger_ms",
        "behaviour/limits_clients.rs",
        "a_client_that_was_told_its_last_words_may_not_talk_for_ever",
    ),
    (
        "turn_ms",
        "behaviour/turns.rs",
        "a_crowd_of_one_address_does_not_delay_a_client_of_another_in_a_turn",
    ),
    ("stop_ms", "behaviour/stopping.rs", "a_stop_has_a_deadline"),
    (
        "link_connect_ms",
        "behaviour/limits_outward.rs",
        "a_neighbour_that_can_not_be_reached_is_given_up_and_dialled_again",
    ),
    (
        "link_proof_ms",
        "behaviour/neighbours.rs",
        "strangers_have_little_time_and_little_room",
    ),
    (
        "heartbeat_ms",
        "behaviour/neighbours.rs",
        "silence_is_filled_with_heartbeats",
    ),
    (
        "link_silence_ms",
        "behaviour/neighbours.rs",
        "a_frozen_neighbour_is_lost_delays_nobody_and_is_sent_what_it_missed",
    ),
    (
        "redial_first_ms",
        "behaviour/limits_outward.rs",
        "waits_before_dialling_again_grow_from_the_first_to_the_cap",
    ),
    (
        "redial_cap_ms",
        "behaviour/limits_outward.rs",
        "waits_before_dialling_again_grow_from_the_first_to_the_cap",
    ),
    (
        "max_unproven",
        "behaviour/neighbours.rs",
        "strangers_have_little_time_and_little_room",
    ),
    (
        "max_unproven_per_neighbour",
        "behaviour/hostile_neighbours.rs",
        "a_crowd_of_young_connections_keeps_no_neighbour_out_at_its_own_address",
    ),
    (
        "unproven_grace_ms",
        "behaviour/hostile_neighbours.rs",
        "a_crowd_of_young_connections_keeps_no_neighbour_out_at_its_own_address",
    ),
    (
        "max_unproven_new",
        "behaviour/hostile_neighbours.rs",
        "new_connections_from_one_network_are_few_in_a_period_and_cost_no_handshake",
    ),
    (
        "unproven_new_ms",
        "behaviour/hostile_neighbours.rs",
        "new_connections_from_one_network_are_few_in_a_period_and_cost_no_handshake",
    ),
    (
        "places_ms",
        "behaviour/places.rs",
        "a_call_that_hangs_ends_at_its_deadline_and_delays_nobody",
    ),
    (
        "lookup_ms",
        "behaviour/limits_outward.rs",
        "a_name_server_that_does_not_answer_is_given_up",
    ),
    (
        "places_connect_ms",
        "behaviour/limits_outward.rs",
        "places_that_can_not_be_reached_is_given_up",
    ),
    (
        "places_attempt_ms",
        "networks/places.rs",
        "silent_addresses_cost_a_moment_once",
    ),
    (
        "places_silence_ms",
        "behaviour/places_connections.rs",
        "kept_connections_that_died_without_a_word_cost_one_slow_answer",
    ),
    (
        "places_handshake_ms",
        "behaviour/places.rs",
        "a_handshake_that_never_comes_ends_at_its_deadline",
    ),
    (
        "places_idle_ms",
        "behaviour/limits_outward.rs",
        "a_connection_to_places_without_a_question_is_closed",
    ),
    (
        "max_places_connections",
        "behaviour/places.rs",
        "connections_have_a_cap_questions_wait_in_line_and_the_line_has_an_end",
    ),
    (
        "max_places_waiting",
        "behaviour/places.rs",
        "connections_have_a_cap_questions_wait_in_line_and_the_line_has_an_end",
    ),
    (
        "places_head_bytes",
        "behaviour/limits_outward.rs",
        "a_head_of_an_answer_of_places_has_a_limit",
    ),
    (
        "places_body_bytes",
        "behaviour/places_answers.rs",
        "a_body_has_a_limit",
    ),
    (
        "fsync_ms",
        "behaviour/limits_outward.rs",
        "an_accepted_change_is_synced_within_its_time_and_not_before",
    ),
    (
        "journal_wait_ms",
        "behaviour/limits_outward.rs",
        "nobody_waits_for_a_journal_that_the_disk_refuses",
    ),
    (
        "journal_ahead_bytes",
        "behaviour/limits_outward.rs",
        "room_is_reserved_ahead_of_the_journal_and_no_more_than_that",
    ),
    (
        "compact_bytes",
        "behaviour/journal.rs",
        "a_long_journal_is_compacted_while_it_is_used",
    ),
    (
        "log_buffer_bytes",
        "behaviour/logs.rs",
        "a_reader_that_stands_still_delays_nobody_and_lines_are_dropped_and_counted",
    ),
    (
        "log_reserve_bytes",
        "behaviour/log_limits.rs",
        "the_log_leaves_the_journal_its_room_on_the_disk",
    ),
    (
        "log_faults_bytes",
        "behaviour/log_limits.rs",
        "however_many_clients_there_are_their_mistakes_take_so_much_of_the_log_and_no_more",
    ),
    (
        "log_client_faults_bytes",
        "behaviour/log_limits.rs",
        "a_client_s_invalid_commands_take_its_share_of_the_log_and_the_rest_is_counted",
    ),
    (
        "log_faults_ms",
        "behaviour/log_limits.rs",
        "a_client_s_share_comes_back_and_what_was_left_out_is_told_while_it_is_there",
    ),
    (
        "log_quote_bytes",
        "behaviour/log_limits.rs",
        "the_log_shows_the_beginning_of_a_long_line_that_is_not_answered",
    ),
    // These are no settings: their tests know them by their value.
    (
        "LINE_BYTES",
        "behaviour/commands.rs",
        "every_transcript_is_played_to_its_end",
    ),
    (
        "LINK_LINE_BYTES",
        "behaviour/neighbours.rs",
        "nothing_is_believed_before_the_proof",
    ),
    (
        "TURN_BYTES",
        "behaviour/turns.rs",
        "nobody_is_read_twice_in_a_turn_or_more_than_a_turn_s_share",
    ),
];

/// The limits that `--check` prints, and the constants in `limits.rs`.
fn limits() -> BTreeSet<String> {
    let output = server_command()
        .args(["Riley", "--check"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, table) = text.split_once("\nlimits\n").unwrap();
    let settings = table.lines().map_while(|line| line.strip_prefix("  "));
    let source = include_str!("../../src/core/base/limits.rs");
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter(|line| !line.starts_with("fn "));
    settings
        .chain(constants)
        .filter_map(|line| line.split([' ', ':']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_limit_has_a_test_that_reaches_it() {
    let limits = limits();
    assert!(
        limits.contains("max_clients") && limits.contains("LINE_BYTES"),
        "{limits:?}"
    );
    let reached: BTreeSet<String> = REACHED_BY
        .iter()
        .map(|(limit, ..)| (*limit).to_owned())
        .collect();
    let without: Vec<_> = limits.difference(&reached).collect();
    assert!(
        without.is_empty(),
        "write a test that reaches each of {without:?}, and name it in REACHED_BY"
    );
    let gone: Vec<_> = reached.difference(&limits).collect();
    assert!(gone.is_empty(), "no limits any more: {gone:?}");
}

#[test]
fn the_tests_that_reach_limits_are_there_and_set_them() {
    for (limit, file, test) in REACHED_BY {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests")
            .join(file);
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(
            source.contains(&format!("#[test]\nfn {test}()")),
            "{file} has no test {test}, which is to reach {limit}"
        );
        let is_setting = limit.starts_with(|first: char| first.is_ascii_lowercase());
        assert!(
            !is_setting || source.contains(&format!("{limit} = ")),
            "{file} sets no {limit}"
        );
    }
}
