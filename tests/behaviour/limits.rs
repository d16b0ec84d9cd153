//! Every limit has a test that reaches it. This file lists these tests, and fails for a limit
//! without one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use herd_testkit::herd::server_command;

/// A limit, and the test that reaches it: the file in `tests`, and the name of the test.
const REACHED_BY: [(&str, &str, &str); 69] = [
    (
        "max_clients",
        "behaviour/crowds.rs",
        "clients_above_max_clients_are_rejected",
    ),
    (
        "max_clients_per_address",
        "behaviour/crowds.rs",
        "clients_above_max_clients_per_address_are_rejected",
    ),
    (
        "max_unidentified",
        "behaviour/proxy.rs",
        "connections_without_a_header_are_limited",
    ),
    (
        "proxy_header_ms",
        "behaviour/proxy.rs",
        "slow_bytes_do_not_extend_the_proxy_header_deadline",
    ),
    (
        "proxy_header_bytes",
        "behaviour/proxy.rs",
        "a_listed_proxy_without_a_valid_header_is_refused",
    ),
    (
        "keepalive_ms",
        "networks/vanished.rs",
        "a_client_whose_machine_vanished_is_closed",
    ),
    (
        "max_records",
        "behaviour/crowds.rs",
        "records_above_max_records_are_refused",
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
        "a_record_expires_on_every_server_and_after_a_restart",
    ),
    (
        "max_record_bytes",
        "behaviour/limits_clients.rs",
        "a_full_table_is_logged_rarely",
    ),
    (
        "unpacked_records",
        "behaviour/limits_clients.rs",
        "moving_clients_are_correct_with_few_unpacked_records",
    ),
    (
        "accept_backlog",
        "behaviour/limits_clients.rs",
        "every_connection_in_the_accept_backlog_is_served",
    ),
    (
        "line_ms",
        "behaviour/framing.rs",
        "an_unfinished_line_is_answered_after_line_ms",
    ),
    (
        "tls_handshake_ms",
        "behaviour/tls.rs",
        "a_tls_handshake_has_a_deadline",
    ),
    (
        "tls_handshake_bytes",
        "behaviour/hostile_clients_tls.rs",
        "a_handshake_above_tls_handshake_bytes_is_refused",
    ),
    (
        "tls_handshake_records",
        "behaviour/tls_records.rs",
        "a_handshake_above_tls_handshake_records_is_refused",
    ),
    (
        "buffer_bytes",
        "behaviour/buffers.rs",
        "clients_that_never_read_are_closed_and_others_are_served",
    ),
    (
        "output_high_bytes",
        "behaviour/limits_clients.rs",
        "the_output_water_marks_pause_and_resume_a_client",
    ),
    (
        "output_low_bytes",
        "behaviour/limits_clients.rs",
        "the_output_water_marks_pause_and_resume_a_client",
    ),
    (
        "output_stall_ms",
        "behaviour/crowds.rs",
        "a_client_that_does_not_read_is_closed_after_output_stall_ms",
    ),
    (
        "linger_ms",
        "behaviour/limits_clients.rs",
        "a_closing_client_is_cut_off_after_linger_ms",
    ),
    (
        "turn_ms",
        "behaviour/turns.rs",
        "clients_of_one_address_do_not_delay_another_in_a_turn",
    ),
    (
        "drain_ms",
        "behaviour/draining.rs",
        "clients_are_closed_evenly_and_no_answer_is_lost",
    ),
    (
        "stop_ms",
        "behaviour/stopping.rs",
        "a_stop_ends_after_stop_ms",
    ),
    (
        "link_connect_ms",
        "behaviour/limits_outward.rs",
        "an_unreachable_neighbour_is_dialled_again",
    ),
    (
        "link_proof_ms",
        "behaviour/neighbours.rs",
        "unproven_peers_are_limited_in_time_and_number",
    ),
    (
        "heartbeat_ms",
        "behaviour/neighbours.rs",
        "heartbeats_are_sent_and_a_silent_link_is_lost",
    ),
    (
        "link_silence_ms",
        "behaviour/neighbours.rs",
        "a_frozen_neighbour_is_dropped_and_catches_up_later",
    ),
    (
        "redial_first_ms",
        "behaviour/limits_outward.rs",
        "redial_waits_grow_from_the_first_to_the_cap",
    ),
    (
        "redial_cap_ms",
        "behaviour/limits_outward.rs",
        "redial_waits_grow_from_the_first_to_the_cap",
    ),
    (
        "max_unproven",
        "behaviour/neighbours.rs",
        "unproven_peers_are_limited_in_time_and_number",
    ),
    (
        "max_unproven_per_neighbour",
        "behaviour/hostile_neighbours.rs",
        "young_unproven_connections_do_not_block_a_neighbour",
    ),
    (
        "unproven_grace_ms",
        "behaviour/hostile_neighbours.rs",
        "young_unproven_connections_do_not_block_a_neighbour",
    ),
    (
        "max_unproven_new",
        "behaviour/hostile_neighbours.rs",
        "new_connections_per_network_are_rate_limited",
    ),
    (
        "unproven_new_ms",
        "behaviour/hostile_neighbours.rs",
        "new_connections_per_network_are_rate_limited",
    ),
    (
        "max_followers",
        "behaviour/following.rs",
        "followers_above_max_followers_are_refused_and_those_below_cost_little",
    ),
    (
        "places_ms",
        "behaviour/places.rs",
        "a_hung_places_call_ends_at_its_deadline",
    ),
    (
        "lookup_ms",
        "behaviour/limits_outward.rs",
        "a_name_lookup_times_out",
    ),
    (
        "places_connect_ms",
        "behaviour/limits_outward.rs",
        "a_connect_to_places_times_out",
    ),
    (
        "places_attempt_ms",
        "networks/places.rs",
        "an_unreachable_places_address_is_tried_once",
    ),
    (
        "places_silence_ms",
        "behaviour/places_connections.rs",
        "silently_dead_connections_cost_one_slow_answer",
    ),
    (
        "places_handshake_ms",
        "behaviour/places.rs",
        "a_places_handshake_has_a_deadline",
    ),
    (
        "places_idle_ms",
        "behaviour/limits_outward.rs",
        "an_idle_connection_to_places_is_closed",
    ),
    (
        "max_places_connections",
        "behaviour/places.rs",
        "places_connections_and_their_queue_are_limited",
    ),
    (
        "max_places_waiting",
        "behaviour/places.rs",
        "places_connections_and_their_queue_are_limited",
    ),
    (
        "places_head_bytes",
        "behaviour/limits_outward.rs",
        "a_places_response_head_has_a_size_limit",
    ),
    (
        "places_body_bytes",
        "behaviour/places_answers.rs",
        "a_places_response_body_has_a_size_limit",
    ),
    (
        "fsync_ms",
        "behaviour/limits_outward.rs",
        "a_change_is_synced_after_fsync_ms",
    ),
    (
        "journal_wait_ms",
        "behaviour/limits_outward.rs",
        "updates_are_refused_after_journal_wait_ms",
    ),
    (
        "journal_ahead_bytes",
        "behaviour/limits_outward.rs",
        "the_journal_reserves_journal_ahead_bytes",
    ),
    (
        "compact_bytes",
        "behaviour/journal.rs",
        "a_journal_is_compacted_while_updates_arrive",
    ),
    (
        "log_buffer_bytes",
        "behaviour/logs.rs",
        "a_blocked_log_pipe_drops_and_counts_lines",
    ),
    (
        "log_reserve_bytes",
        "behaviour/log_limits.rs",
        "the_log_leaves_the_journal_its_room_on_the_disk",
    ),
    (
        "log_faults_bytes",
        "behaviour/log_limits.rs",
        "logged_faults_of_all_clients_have_a_byte_limit",
    ),
    (
        "log_client_faults_bytes",
        "behaviour/log_limits.rs",
        "a_client_s_logged_faults_have_a_byte_limit",
    ),
    (
        "log_faults_ms",
        "behaviour/log_limits.rs",
        "a_client_s_log_share_refills_and_omissions_are_logged",
    ),
    (
        "log_quote_bytes",
        "behaviour/log_limits.rs",
        "the_log_shows_the_beginning_of_a_long_line_only",
    ),
    (
        "slow_turn_ms",
        "behaviour/http_limits.rs",
        "a_slow_turn_is_shown_with_its_slowest_part",
    ),
    (
        "max_http_connections",
        "behaviour/http_limits.rs",
        "an_idle_connection_makes_room_and_a_busy_one_does_not",
    ),
    (
        "http_head_bytes",
        "behaviour/http_limits.rs",
        "a_head_above_http_head_bytes_is_refused",
    ),
    (
        "http_head_ms",
        "behaviour/http_limits.rs",
        "slow_bytes_do_not_extend_the_time_for_a_head",
    ),
    (
        "http_idle_ms",
        "behaviour/http_limits.rs",
        "an_idle_connection_is_closed_after_http_idle_ms",
    ),
    (
        "http_output_bytes",
        "behaviour/http_limits.rs",
        "an_answer_in_steps_waits_for_http_output_bytes",
    ),
    (
        "http_page_entries",
        "behaviour/http_limits.rs",
        "a_page_has_http_page_entries_and_the_next_page_follows",
    ),
    // These are no settings: their tests know them by their value.
    (
        "LINE_BYTES",
        "behaviour/commands.rs",
        "every_transcript_gets_the_expected_answers",
    ),
    (
        "LINK_LINE_BYTES",
        "behaviour/neighbours.rs",
        "lines_before_the_proof_are_refused",
    ),
    (
        "HTTP_FIELDS",
        "behaviour/http_limits.rs",
        "a_head_above_http_head_bytes_is_refused",
    ),
    (
        "TURN_BYTES",
        "behaviour/turns.rs",
        "each_connection_is_read_once_per_turn_within_its_share",
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
fn every_listed_limit_test_exists_and_sets_its_limit() {
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
