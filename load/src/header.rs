//! Headers of HTTP requests.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD as STANDARD, Engine};

/// Headers whose values may be shown. Others may carry credentials, whatever their names.
const HARMLESS: [&str; 17] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-type",
    "expect",
    "host",
    "if-modified-since",
    "if-none-match",
    "pragma",
    "range",
    "te",
    "user-agent",
];

const AUTHORIZATION: &str = "Authorization";

/// A header of a request, such as `Accept: text/html`.
///
/// # Examples
///
/// ```
/// use ringspun_load::Header;
///
/// let header: Header = "Accept: text/html".parse().unwrap();
/// assert_eq!(header.to_string(), "Accept: text/html");
/// assert!("Content-Length: 5".parse::<Header>().unwrap_err().contains("derived from the body"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Header {
    /// The header of basic authentication, from a name and a password with a colon between them: the credentials of the
    /// flag `--user`, and of URLs.
    ///
    /// # Errors
    ///
    /// A message that says what was expected, and does not repeat the credentials: a colon, and no control characters.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::Header;
    ///
    /// let header = Header::basic_auth("Aladdin:open sesame").unwrap();
    /// assert_eq!(header.to_string(), "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    /// assert!(Header::basic_auth("Aladdin").unwrap_err().contains("expected NAME:PASSWORD"));
    /// ```
    pub fn basic_auth(credentials: &str) -> Result<Self, String> {
        if !credentials.contains(':') || credentials.chars().any(char::is_control) {
            return Err("expected NAME:PASSWORD without control characters".to_string());
        }
        let value = format!("Basic {}", STANDARD.encode(credentials));
        Ok(Self { name: AUTHORIZATION.to_string(), value })
    }

    /// The name, as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, without spaces around it.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    /// Whether it describes the body.
    pub(crate) fn is_of_content(&self) -> bool {
        self.name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"))
    }

    /// Whether it is for the server of the target alone: credentials, cookies and the name of that server.
    pub(crate) fn is_of_server(&self) -> bool {
        let names = [AUTHORIZATION, "cookie", "proxy-authorization", "host"];
        names.iter().any(|name| self.name.eq_ignore_ascii_case(name))
    }

    /// Whether it is the header `Authorization`.
    pub fn is_authorization(&self) -> bool {
        self.name.eq_ignore_ascii_case(AUTHORIZATION)
    }

    /// The header as it may be shown to others: without its value, unless it is one that never is confidential, such
    /// as `Accept`.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::Header;
    ///
    /// let header: Header = "Authorization: Bearer abc".parse().unwrap();
    /// assert_eq!(header.redacted(), "Authorization: ...");
    /// ```
    pub fn redacted(&self) -> String {
        match HARMLESS.iter().any(|harmless| self.name.eq_ignore_ascii_case(harmless)) {
            true => self.to_string(),
            false => format!("{}: ...", self.name),
        }
    }
}

impl FromStr for Header {
    type Err = String;

    /// The error says what is wrong and what was expected; callers put the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
        if !is_token(name) {
            return Err(format!(
                "{name:?} is not a header name: expected letters, digits and characters such as -, without spaces"
            ));
        }
        let value = value.trim_matches([' ', '\t']);
        if let Some(bad) = value.chars().find(|character| character.is_control() && *character != '\t') {
            return Err(format!("the header value contains {bad:?}: expected no control characters"));
        }
        if ["content-length", "transfer-encoding"].iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            return Err(format!("{name} is derived from the body: expected another header"));
        }
        Ok(Self { name: name.to_string(), value: value.to_string() })
    }
}

/// Without values that may be confidential.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Header").field(&self.redacted()).finish()
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

/// A token as defined by RFC 9110: methods and header names are tokens.
pub(crate) fn is_token(text: &str) -> bool {
    let is_punctuation = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_punctuation(byte))
}
