//! Durations as people write them: `90s`, `30m`, `2h`, `1d`, `1h30m`.

/// The units, largest first, in seconds.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// How many seconds it is; `None` if it is none, or no duration. Units come in their order, each at most once.
pub(super) fn parse(text: &str) -> Option<u32> {
    let (mut rest, mut units, mut seconds) = (text, &UNITS[..], 0u32);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?);
        let letter = after.chars().next()?;
        let at = units.iter().position(|(unit, _)| *unit == letter)?;
        let (_, of) = units.get(at)?;
        seconds = seconds.checked_add(number.parse::<u32>().ok()?.checked_mul(*of)?)?;
        units = units.get(at + 1..)?;
        rest = after.get(letter.len_utf8()..)?;
    }
    (seconds > 0).then_some(seconds)
}

/// The same the other way round.
pub(super) fn show(mut seconds: u32) -> String {
    let mut text = String::new();
    for (unit, of) in UNITS {
        if seconds >= of {
            text.push_str(&format!("{}{unit}", seconds / of));
        }
        seconds %= of;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let good = [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), ("1d2h3m4s", 93_784), ("007s", 7)];
        for (text, seconds) in good {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        for text in
            ["", "90", "s", "h1", "1h30", "30m1h", "1h1h", "1.5h", "-1h", "1 h", "1H", "1w", "0s", "0h0m", "49711d", "1ä", "99999999999s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3600, "1h"), (5400, "1h30m"), (86_401, "1d1s")] {
            assert_eq!(show(seconds), text);
        }
        for seconds in [1, 60, 61, 86_399, u32::MAX] {
            assert_eq!(parse(&show(seconds)), Some(seconds));
        }
    }
}
