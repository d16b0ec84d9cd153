//! libFuzzer's way to [`herd_fuzz::http_response`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| herd_fuzz::http_response(data));
