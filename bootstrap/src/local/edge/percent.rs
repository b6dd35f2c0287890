//! Percent-encoding, as URLs and form bodies have it.

/// Decodes `%XX`. What is no valid escape stays as it is.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(hex_pair)
        {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?).ok()
}

/// Encodes all but the characters that are never special.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The names and values of a query string or a form body, in order.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
    })
}

/// The first value of a name.
pub(super) fn value(text: &str, name: &str) -> Option<String> {
    pairs(text)
        .find(|(found, _)| found == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_broken_ones_kept() {
        assert_eq!(decode("/%5Fministack/reset"), "/_ministack/reset");
        assert_eq!(decode("a%2"), "a%2");
        assert_eq!(decode("%zz%C3%A9"), "%zz\u{e9}");
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["arn:aws:rds:us-east-1:0:cluster:a", "a+b & c%\u{e9}", ""] {
            assert_eq!(decode(&encode(text)), text);
        }
        assert_eq!(encode("a:b c"), "a%3Ab%20c");
    }

    #[test]
    fn a_form_gives_its_values() {
        let form = "Action=ModifyDBCluster&MasterUserPassword=a%26b+c%3D&Empty=&Flag";
        assert_eq!(value(form, "Action").as_deref(), Some("ModifyDBCluster"));
        assert_eq!(value(form, "MasterUserPassword").as_deref(), Some("a&b c="));
        assert_eq!(value(form, "Empty").as_deref(), Some(""));
        assert_eq!(value(form, "Flag").as_deref(), Some(""));
        assert_eq!(value(form, "Other"), None);
    }
}
