//! Times for programs (RFC 3339, UTC).

/// Milliseconds since the Unix epoch as `2026-01-31T12:34:56.789Z`.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[20..23], unix_ms % 1000);
    finished(text, unix_ms / 1000)
}

/// Microseconds since the Unix epoch as `2026-01-31T12:34:56.789012Z`.
#[must_use]
pub fn rfc3339_micros(unix_us: u64) -> String {
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    put(&mut text[20..26], unix_us % 1_000_000);
    finished(text, unix_us / 1_000_000)
}

/// Seconds since the Unix epoch as `2026-01-31T12:34:56Z`.
#[must_use]
pub fn rfc3339_seconds(unix_seconds: u64) -> String {
    finished(*b"0000-00-00T00:00:00Z", unix_seconds)
}

/// With everything down to the second. Years end at 9999, as those of the RFC do.
fn finished<const LEN: usize>(mut text: [u8; LEN], seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    put(&mut text[..4], year.min(9999));
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second / 3600);
    put(&mut text[14..16], second / 60 % 60);
    put(&mut text[17..19], second % 60);
    // Nothing but ASCII was put there.
    String::from_utf8(text.into()).unwrap_or_default()
}

/// The last digits of a number, as many as there is place.
fn put(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar. Counted in
/// eras of 400 years that begin on the first of March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_987, "9999-12-31T23:59:59.987Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            let finer = text.replace('Z', "042Z");
            assert_eq!(rfc3339_micros(ms * 1000 + 42), finer);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_785_240_000, "2026-07-28T12:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339_seconds(seconds), text);
        }
    }
}
