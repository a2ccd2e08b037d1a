//! ISO 8601 in UTC with microseconds: `2026-11-21T06:56:12.170055Z`.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Up to the second: `2026-11-21T06:56:12`.
const SECOND: usize = 19;

thread_local! {
    /// The last second that was formatted here, and its text: the calendar is worked out once a second.
    static LAST: RefCell<(u64, [u8; SECOND])> = const { RefCell::new((u64::MAX, [0; SECOND])) };
}

/// Appends `now`. A time before 1970 is shown as 1970.
pub(super) fn write(buffer: &mut Vec<u8>, now: SystemTime) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since_epoch.as_secs();
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            let formatted =
                humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second)).to_string();
            if let Some(formatted) = formatted.as_bytes().first_chunk() {
                (*last, *text) = (second, *formatted);
            }
        }
        buffer.extend_from_slice(text);
    });
    let mut micros = since_epoch.subsec_micros();
    let mut fraction = *b".000000Z";
    for digit in fraction[1..=6].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    buffer.extend_from_slice(&fraction);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_a_library_for_times_near_and_far() {
        let times =
            [0, 1, 999_999, 1_000_000, 951_782_400_000_000, 1_795_244_172_170_055, 253_402_300_799_999_999];
        for micros in times {
            let now = UNIX_EPOCH + Duration::from_micros(micros);
            let mut text = Vec::new();
            write(&mut text, now);
            assert_eq!(String::from_utf8(text).unwrap(), humantime::format_rfc3339_micros(now).to_string());
        }
    }
}
