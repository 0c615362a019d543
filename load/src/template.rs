//! Templates in listed requests: what stands for a counter, a random number, or a field of a table.

use std::ops::Range;

use crate::payload::mix;

/// The expected format, for error messages.
const FORM: &str = "expected {{counter}}, {{random LOW HIGH}} with whole numbers, or {{csv.COLUMN}}";
/// The most digits that a number in a template has.
const NUMBER_MAX_BYTES: usize = 20;

/// Rows of data with named columns, which [`ListedRequest`](crate::ListedRequest)s may refer to.
///
/// # Examples
///
/// ```
/// use ringspun_load::DataRows;
///
/// let rows = vec![vec!["ann".to_string()], vec!["bob".to_string()]];
/// assert!(DataRows::new(vec!["name".to_string()], rows).is_ok());
/// let error = DataRows::new(vec!["name".to_string()], Vec::new()).unwrap_err();
/// assert_eq!(error, "the table has no rows: expected one or more below the names of the columns");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRows {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl DataRows {
    /// A table. Each row has a field for each column.
    ///
    /// # Errors
    ///
    /// A message, if there is no row, or one has another number of fields than there are columns, or two columns have
    /// the same name.
    pub fn new(columns: Vec<String>, rows: Vec<Vec<String>>) -> Result<Self, String> {
        if rows.is_empty() {
            return Err(
                "the table has no rows: expected one or more below the names of the columns".to_string()
            );
        }
        let has_twin = |(at, name): &(usize, &String)| columns[..*at].contains(name);
        if let Some((_, twin)) = columns.iter().enumerate().find(has_twin) {
            return Err(format!("two columns have the name {twin:?}: expected a name of its own for each"));
        }
        let count = columns.len();
        match rows.iter().find(|row| row.len() != count) {
            Some(row) => {
                Err(format!("a row has {} fields: expected {count}, as there are columns", row.len()))
            }
            None => Ok(Self { columns, rows }),
        }
    }

    /// The number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn field(&self, column: usize, row: u64) -> &str {
        // Cannot truncate: a remainder of the count.
        &self.rows[(row % self.rows.len() as u64) as usize][column]
    }
}

/// Where a template is, which decides what its values may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Other characters than visible ones are percent-encoded.
    Path,
    /// No control characters.
    Header,
    /// Anything.
    Body,
}

/// Text with values in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// The number of the request, from 1.
    Counter,
    Random {
        low: u64,
        high: u64,
        /// Tells it from others in the same request.
        salt: u64,
    },
    /// The fields of a column, row by row.
    Column {
        column: usize,
        place: Place,
    },
}

impl Template {
    /// Parses text. The error says what was expected.
    pub(crate) fn parse(text: &[u8], place: Place, data: Option<&DataRows>) -> Result<Self, String> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(open) = find(rest, b"{{") {
            template.add_text(&rest[..open]);
            let close = find(&rest[open..], b"}}").ok_or(format!("a {{{{ has no }}}}: {FORM}"))?;
            let inner: Range<usize> = open + 2..open + close;
            let shown = String::from_utf8_lossy(&rest[inner]);
            let salt = template.pieces.len() as u64;
            let piece = parse_piece(shown.trim(), (place, salt), data)
                .map_err(|error| format!("{{{{{shown}}}}}: {error}"))?;
            template.pieces.push(piece);
            rest = &rest[open + close + 2..];
        }
        template.add_text(rest);
        Ok(template)
    }

    /// Adds text without templates.
    pub(crate) fn add_text(&mut self, text: &[u8]) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.extend_from_slice(text),
            _ => self.pieces.push(Piece::Text(text.to_vec())),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.pieces.extend(other.pieces);
    }

    /// The text, if it has no values.
    pub(crate) fn as_text(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [] => Some(&[]),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The parts that do not vary.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_slice()),
            _ => None,
        })
    }

    /// Appends the text with the values for a request, which has a number and a row of data.
    pub(crate) fn write(
        &self,
        to: &mut Vec<u8>,
        (request, row): (u64, u64),
        seed: u64,
        data: Option<&DataRows>,
    ) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => to.extend_from_slice(text),
                Piece::Counter => to.extend_from_slice((request + 1).to_string().as_bytes()),
                Piece::Random { low, high, salt } => {
                    let random = mix(seed ^ mix(request) ^ mix(!salt));
                    let span = u128::from(high - low) + 1;
                    // Below the span.
                    let above = ((u128::from(random) * span) >> 64) as u64;
                    to.extend_from_slice((low + above).to_string().as_bytes());
                }
                Piece::Column { column, place } => {
                    let field = data.map_or("", |data| data.field(*column, row));
                    match place {
                        Place::Path => write_encoded(to, field),
                        Place::Header | Place::Body => to.extend_from_slice(field.as_bytes()),
                    }
                }
            }
        }
    }

    /// The longest text that it can have.
    pub(crate) fn max_bytes(&self, data: Option<&DataRows>) -> usize {
        let longest = |column: usize| {
            let rows = data.iter().flat_map(|data| &data.rows);
            rows.map(|row| row[column].len()).max().unwrap_or(0)
        };
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Counter | Piece::Random { .. } => NUMBER_MAX_BYTES,
            Piece::Column { column, place: Place::Path } => 3 * longest(*column),
            Piece::Column { column, .. } => longest(*column),
        });
        pieces.sum()
    }
}

fn parse_piece(text: &str, (place, salt): (Place, u64), data: Option<&DataRows>) -> Result<Piece, String> {
    if let Some(name) = text.strip_prefix("csv.") {
        let data = data.ok_or("there is no table: expected --data FILE.csv")?;
        let column = data.columns.iter().position(|column| column == name).ok_or_else(|| {
            format!("the table has no column {name:?}: expected one of {}", data.columns.join(", "))
        })?;
        let is_bad = |row: &&Vec<String>| row[column].chars().any(char::is_control);
        return match data.rows.iter().find(is_bad).filter(|_| place == Place::Header) {
            Some(row) => Err(format!(
                "the field {:?} is not for a header: expected no control characters",
                row[column]
            )),
            None => Ok(Piece::Column { column, place }),
        };
    }
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["counter"] => Ok(Piece::Counter),
        ["random", low, high] => match (low.parse(), high.parse()) {
            (Ok(low), Ok(high)) if low <= high => Ok(Piece::Random { low, high, salt }),
            (Ok::<u64, _>(low), Ok::<u64, _>(high)) => Err(format!("{low} is above {high}: {FORM}")),
            _ => Err(FORM.to_string()),
        },
        _ => Err(FORM.to_string()),
    }
}

fn find(bytes: &[u8], pair: &[u8; 2]) -> Option<usize> {
    bytes.windows(2).position(|window| window == pair)
}

/// Writes a value for a path: as it is, as far as it is visible ASCII.
fn write_encoded(to: &mut Vec<u8>, field: &str) {
    for byte in field.bytes() {
        match byte.is_ascii_graphic() && byte != b'#' {
            true => to.push(byte),
            false => to.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> DataRows {
        let rows = [["1", "ann"], ["2", "b b#\u{e9}"]].map(|row| row.map(str::to_string).to_vec());
        DataRows::new(vec!["id".to_string(), "name".to_string()], rows.to_vec()).unwrap()
    }

    fn written(text: &str, place: Place, request: u64, seed: u64) -> String {
        let template = Template::parse(text.as_bytes(), place, Some(&data())).unwrap();
        let mut bytes = Vec::new();
        template.write(&mut bytes, (request, request), seed, Some(&data()));
        assert!(bytes.len() <= template.max_bytes(Some(&data())), "{text}");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_take_the_place_of_templates() {
        assert_eq!(written("no } values {", Place::Body, 0, 0), "no } values {");
        assert_eq!(written("{{counter}}-{{ counter }}", Place::Path, 6, 0), "7-7");
        for (request, expected) in [(0, "1/ann"), (1, "2/b b#\u{e9}"), (2, "1/ann")] {
            assert_eq!(written("{{csv.id}}/{{csv.name}}", Place::Body, request, 0), expected);
        }
        assert_eq!(written("{{csv.name}}", Place::Path, 1, 0), "b%20b%23%C3%A9");
    }

    #[test]
    fn random_numbers_cover_their_range_evenly_and_repeat_with_the_seed() {
        let mut counts = [0; 7];
        for request in 0..7000 {
            let text = written("{{random 3 9}} {{random 3 9}}", Place::Body, request, 5);
            assert_eq!(text, written("{{random 3 9}} {{random 3 9}}", Place::Body, request, 5));
            let (first, _) = text.split_once(' ').unwrap();
            counts[first.parse::<usize>().unwrap() - 3] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let differ = (0..100).filter(|request| {
            let text = written("{{random 0 1000}} {{random 0 1000}}", Place::Body, *request, 5);
            text.split_once(' ').is_some_and(|(first, second)| first != second)
        });
        assert!(differ.count() > 90);
        assert_ne!(
            written("{{random 0 99999}}", Place::Body, 0, 1),
            written("{{random 0 99999}}", Place::Body, 0, 2)
        );
        assert_eq!(
            written(&format!("{{{{random {0} {0}}}}}", u64::MAX), Place::Body, 0, 1),
            u64::MAX.to_string()
        );
    }

    #[test]
    fn what_is_no_template_gets_what_was_expected() {
        for (text, expected) in [
            ("{{", "has no }}"),
            ("{{x}}", "{{x}}: expected {{counter}}"),
            ("{{}}", "expected {{counter}}"),
            ("{{random 1}}", "expected {{counter}}"),
            ("{{random 5 1}}", "5 is above 1"),
            ("{{random -1 1}}", "with whole numbers"),
            ("{{csv.x}}", "expected one of id, name"),
        ] {
            let error = Template::parse(text.as_bytes(), Place::Body, Some(&data())).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Template::parse(b"{{csv.id}}", Place::Body, None).unwrap_err();
        assert!(error.contains("expected --data FILE.csv"), "{error}");
        let rows = vec![vec!["a\r\nb".to_string()]];
        let bad = DataRows::new(vec!["x".to_string()], rows).unwrap();
        let error = Template::parse(b"{{csv.x}}", Place::Header, Some(&bad)).unwrap_err();
        assert!(error.contains("expected no control characters"), "{error}");
    }
}
