//! Bridge: how Route 53 writes booleans.
//!
//! AWS answers health checks with `<EnableSNI>true</EnableSNI>`. The emulator writes `True`, which SDKs refuse to read.

/// The elements of a health check that are booleans.
const BOOLEANS: [&str; 4] = ["EnableSNI", "Inverted", "Disabled", "MeasureLatency"];

/// Writes the booleans of an answer as XML has them. `None` when there is nothing to change.
pub(in crate::local) fn rewrite(answer: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut rewritten = text.to_owned();
    for name in BOOLEANS {
        for (python, xml) in [("True", "true"), ("False", "false")] {
            rewritten = rewritten.replace(
                &format!("<{name}>{python}</{name}>"),
                &format!("<{name}>{xml}</{name}>"),
            );
        }
    }
    (rewritten != text).then(|| rewritten.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_lower_case() {
        let answer =
            b"<A><EnableSNI>True</EnableSNI><Inverted>False</Inverted><SearchString>True</SearchString></A>";
        let expected =
            "<A><EnableSNI>true</EnableSNI><Inverted>false</Inverted><SearchString>True</SearchString></A>";
        assert_eq!(rewrite(answer).as_deref(), Some(expected.as_bytes()));
        assert_eq!(rewrite(expected.as_bytes()), None);
    }
}
