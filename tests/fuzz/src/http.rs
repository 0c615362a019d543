//! Answers of HTTP: however they are cut into pieces, they are the same answers.

use ringspun_load::fuzzing::read_answers;

/// The first byte says whether the requests were for HEAD, the next four how the rest is cut.
pub fn check(data: &[u8]) {
    let Some((&[flags, ref lengths @ ..], text)) = data.split_first_chunk::<5>() else { return };
    let is_head = flags & 1 == 1;
    let whole = read_answers(&if text.is_empty() { vec![] } else { vec![text] }, is_head);
    let came: u64 = whole.whole.iter().map(|(_, length_bytes)| length_bytes).sum();
    assert!(came <= text.len() as u64, "{came} bytes of {} are in answers", text.len());
    let mut rest = text;
    let mut pieces = Vec::new();
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*length) + 1));
        pieces.push(piece);
        rest = behind;
    }
    assert_eq!(read_answers(&pieces, is_head), whole, "in pieces of {lengths:?} bytes and one more");
    let bytes: Vec<_> = text.chunks(1).collect();
    assert_eq!(read_answers(&bytes, is_head), whole, "byte by byte");
}
