//! libFuzzer's way to [`herd_fuzz::client_line`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| herd_fuzz::client_line(data));
