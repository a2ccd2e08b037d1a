//! The lab's readers: any bytes are cases, a recorded run, manifests, or are refused with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use math_service::lab::hpa::{cases, explain, objects, trace};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(document) = serde_json::from_slice(bytes) {
        for refused in cases::decide(document).into_iter().filter_map(Result::err) {
            assert!(!refused.reason.is_empty());
        }
    }
    if let Ok(run) = trace::read(bytes) {
        let (open, closed) = (run.replay(), run.replay_closed());
        assert!(open.is_err() || open.as_ref().is_ok_and(|lines| lines.len() == run.syncs.len()));
        assert!(closed.is_err() || closed.as_ref().is_ok_and(|lines| lines.len() == run.syncs.len()));
    }
    if let Some(objects) = std::str::from_utf8(bytes).ok().and_then(|text| objects::read(text).ok()) {
        for minor in [32, 35] {
            if let Ok(text) = explain::explain(&objects, Some("2026-11-20T12:00:30Z"), minor) {
                assert!(text.contains("Result: "), "{text}");
            }
        }
    }
});
