//! libFuzzer's way to [`herd_fuzz::proxy_header`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| herd_fuzz::proxy_header(data));
