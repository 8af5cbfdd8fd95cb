//! Text out of bytes that come in pieces.

/// The beginning of a character whose rest has not come yet.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<u8>);

impl Pieces {
    /// The text of these bytes, after those before. What is none is U+FFFD, as a terminal shows it.
    pub(super) fn text(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        let mut joined = std::mem::take(&mut self.0);
        let mut rest = bytes;
        if !joined.is_empty() {
            joined.extend_from_slice(bytes);
            rest = &joined;
        }
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(good) => {
                    text.push_str(good);
                    break;
                }
                Err(why) => {
                    let (good, bad) = rest.split_at(why.valid_up_to());
                    text.push_str(std::str::from_utf8(good).unwrap_or_default());
                    let Some(wrong) = why.error_len() else {
                        self.0 = bad.to_vec();
                        break;
                    };
                    text.push('\u{fffd}');
                    rest = bad.get(wrong..).unwrap_or_default();
                }
            }
        }
        text
    }

    /// What was begun and does not go on.
    pub(super) fn end(&mut self) -> &'static str {
        if std::mem::take(&mut self.0).is_empty() { "" } else { "\u{fffd}" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_pieces_is_whole_and_what_is_none_is_replaced() {
        let mut pieces = Pieces::default();
        let text: String = "aé€😀\x1b[1m".bytes().map(|byte| pieces.text(&[byte])).collect();
        assert_eq!(text + pieces.end(), "aé€😀\x1b[1m");
        assert_eq!(pieces.text(b"a\xff\xe2\x82b\xe2"), "a\u{fffd}\u{fffd}b");
        assert_eq!((pieces.end(), pieces.end()), ("\u{fffd}", ""));
    }
}
