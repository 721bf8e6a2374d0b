use crate::SeriesError;

/// Longest series key that InfluxDB accepts, less what it adds for the field `value`.
const MAX_SERIES_KEY: usize = 65_535 - "#!~#value".len();

/// Appends `name,key=value,…` with the escapes of line protocol; a line continues with a space and its fields.
///
/// `tags` are those of a series: sorted, without repeats, without empty keys or values.
///
/// # Errors
/// Names what line protocol or InfluxDB cannot hold: a text that ends in a backslash, or is empty, or has a line's end
/// in it; a name that begins with `#`; the reserved tag keys `time`, `_field` and `_measurement`; more than 65,526
/// bytes in all. `out` is then as it was.
pub fn write_series_key<K: AsRef<str>, V: AsRef<str>>(
    out: &mut Vec<u8>,
    name: &str,
    tags: &[(K, V)],
) -> Result<(), SeriesError> {
    let start = out.len();
    let outcome = write(out, name, tags);
    if outcome.is_ok() && out.len() - start <= MAX_SERIES_KEY {
        return Ok(());
    }
    out.truncate(start);
    outcome.and(Err(SeriesError::tags("name and tags have more than 65526 bytes in line protocol")))
}

fn write<K: AsRef<str>, V: AsRef<str>>(out: &mut Vec<u8>, name: &str, tags: &[(K, V)]) -> Result<(), SeriesError> {
    if name.starts_with('#') {
        return Err(SeriesError::name("in line protocol a line that begins with # is a comment"));
    }
    escape(out, name, is_special_in_name, is_unescaped_in_name).map_err(SeriesError::name)?;
    for (key, value) in tags {
        let (key, value) = (key.as_ref(), value.as_ref());
        if matches!(key, "time" | "_field" | "_measurement") {
            return Err(SeriesError::tag(key, "InfluxDB reserves this tag key"));
        }
        out.push(b',');
        escape(out, key, is_special_in_tag, is_special_in_tag).map_err(|reason| SeriesError::tag(key, reason))?;
        out.push(b'=');
        escape(out, value, is_special_in_tag, is_special_in_tag).map_err(|reason| SeriesError::tag(key, reason))?;
    }
    Ok(())
}

/// Whether a byte of a name needs a backslash before it.
pub(super) fn is_special_in_name(byte: u8) -> bool {
    matches!(byte, b',' | b' ')
}

/// Whether a backslash before this byte of a name is dropped: InfluxDB's writers escape more than they need to.
pub(super) fn is_unescaped_in_name(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'=' | b'"')
}

/// Whether a byte of a tag's key or value needs a backslash before it.
pub(super) fn is_special_in_tag(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'=')
}

/// `is_unescaped`: before which bytes a reader drops a backslash, so that one which is part of the text needs another.
fn escape(
    out: &mut Vec<u8>,
    text: &str,
    is_special: fn(u8) -> bool,
    is_unescaped: fn(u8) -> bool,
) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("line protocol cannot hold empty text");
    }
    if text.ends_with('\\') {
        return Err("line protocol cannot hold text that ends in a backslash");
    }
    let mut before = 0;
    for &byte in text.as_bytes() {
        if matches!(byte, b'\n' | b'\r' | 0) {
            return Err("line protocol cannot hold a line break in text");
        }
        if is_special(byte) || (before == b'\\' && is_unescaped(byte)) {
            out.push(b'\\');
        }
        out.push(byte);
        before = byte;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, tags: &[(&str, &str)]) -> Result<String, String> {
        let mut out = b"before ".to_vec();
        match write_series_key(&mut out, name, tags) {
            Ok(()) => Ok(String::from_utf8(out.split_off(7)).unwrap()),
            Err(error) => {
                assert_eq!(out, b"before ", "an error leaves nothing behind");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn escapes_as_influxdb_does() {
        assert_eq!(key("up", &[]).unwrap(), "up");
        assert_eq!(key("a=b, c", &[("k e", "v=1,2"), ("p", r"C:\dir")]).unwrap(), r"a=b\,\ c,k\ e=v\=1\,2,p=C:\dir");
        assert_eq!(key(r"a\,b", &[]).unwrap(), r"a\\,b");
        assert_eq!(key(r#"a\=b\"c"#, &[]).unwrap(), r#"a\\=b\\"c"#, "readers drop one backslash");
        assert_eq!(key("n", &[("k", "\"é\"")]).unwrap(), "n,k=\"é\"");
    }

    #[test]
    fn names_what_it_cannot_hold() {
        assert_eq!(key("a\\", &[]).unwrap_err(), "name: line protocol cannot hold text that ends in a backslash");
        assert!(key("n", &[("k\\", "v")]).unwrap_err().starts_with("tags.k\\\\: line protocol cannot hold text that"));
        assert!(key("n", &[("a", "1"), ("k", "v\\")]).unwrap_err().starts_with("tags.k: "));
        assert!(key("", &[]).unwrap_err().contains("empty"));
        assert!(key("n", &[("k", "")]).unwrap_err().contains("empty"));
        assert!(key("n", &[("k", "a\nb")]).unwrap_err().contains("line break"));
        assert!(key("#n", &[]).unwrap_err().contains("comment"));
        assert_eq!(key("n", &[("time", "1")]).unwrap_err(), "tags.time: InfluxDB reserves this tag key");
        let long = " ".repeat(1024);
        let keys: Vec<String> = (0..64).map(|key| format!("k{key:02}")).collect();
        let tags: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), long.as_str())).collect();
        assert!(key("n", &tags).unwrap_err().contains("65526"));
        assert!(key("n", &tags[..31]).is_ok());
    }
}
