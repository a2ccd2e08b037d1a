//! The body of an addition: any bytes are read or refused, and what is read is what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use math_service::http::json;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    match json::numbers(body, ["a", "b"]) {
        Ok(numbers) => {
            assert!(numbers.iter().all(|number| number.is_finite()));
            // serde_json may refuse what we ignore (depth, numbers out of range), never disagree on the type.
            if let Ok(document) = serde_json::from_slice::<Value>(body) {
                assert!(document["a"].is_number() && document["b"].is_number(), "{document}");
            }
        }
        Err(problem) => assert!(matches!(problem.status().as_u16(), 400 | 422)),
    }
});
