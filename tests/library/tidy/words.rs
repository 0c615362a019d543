//! Words and phrases that are riddles where the field has a term, and what is left over from work that is not done.

use super::tree::Tree;

/// What is not to be written, and what to write instead. The only file that may have them is this one.
const FORBIDDEN: [(&str, &str); 24] = [
    ("waiting awake", "busy-polling"),
    ("weighs as much", "the term, such as: a penalty of"),
    ("in vain", "without success, or: to no effect"),
    ("who met a lack", "waiters that got ENOBUFS"),
    ("works_at_once", "is_readiness_based"),
    ("fetch memory that", "prefetches memory"),
    ("concerns nobody", "is detached"),
    ("is not listened to", "is ignored"),
    ("not a text", "not a string"),
    ("is no text", "is not a string"),
    ("ends unseen", "its result is discarded"),
    ("grow unseen", "grow unnoticed"),
    ("hangs the operation", "attaches the operation"),
    ("in the end", "on exit, or: at the end"),
    ("are right (", "count as successes"),
    ("behind most in", "weakest in"),
    ("somebody who", "who it is, such as: a caller that"),
    ("of its own accord", "by itself"),
    ("todo", "an issue"),
    ("fixme", "an issue"),
    ("dbg!", "nothing"),
    ("unimplemented!", "an error that says what is not supported"),
    // Paths of one person's machine.
    ("/home/", "a path that every machine has"),
    ("/users/", "a path that every machine has"),
];
const SELF: &str = "tests/library/tidy/words.rs";
/// What is written by programs, or by others.
const NOT_PROSE: [&str; 5] = [".lock", ".json", ".svg", "LICENSE-APACHE", "LICENSE-MIT"];

/// One line for each fault.
pub fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.ending(&[""]) {
        let is_prose = !NOT_PROSE.iter().any(|end| path.ends_with(end));
        if path == SELF || path.starts_with("tests/fuzz/corpus/") || !is_prose {
            continue;
        }
        let (joined, starts) = join(text);
        for (forbidden, instead) in FORBIDDEN {
            for (position, _) in joined.match_indices(forbidden) {
                if is_whole(&joined, position, forbidden) {
                    let line = starts.partition_point(|start| *start <= position);
                    faults.push(format!("{path}:{line}: \"{forbidden}\"; better: {instead}"));
                }
            }
        }
    }
    faults
}

/// The text in small letters and on one line, without marks of comments, and where each of its lines starts in it.
fn join(text: &str) -> (String, Vec<usize>) {
    let (mut joined, mut starts) = (String::new(), Vec::new());
    for line in text.lines() {
        starts.push(joined.len());
        let words = line.trim().trim_start_matches(['/', '!', '#']).trim_start();
        joined.push_str(&words.to_lowercase());
        joined.push(' ');
    }
    (joined, starts)
}

/// Whether it is not a part of a longer word.
fn is_whole(text: &str, position: usize, word: &str) -> bool {
    let is_letter =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    let ends = (word.chars().next_back(), text[position + word.len()..].chars().next());
    let begins = (text[..position].chars().next_back(), word.chars().next());
    [begins, ends].iter().all(|(left, right)| !is_letter(*left) || !is_letter(*right))
}

#[test]
fn planted_words_are_found() {
    let found = faults(&Tree::planted(&[
        ("README.md", "One\nis In  \nvain. In\nvain.\n"),
        ("src/a.rs", "//! A look in\n//! vain; it ends unseen.\n// Blends unseen, mastodont.\n"),
        ("Cargo.lock", "todo\n"),
        (SELF, "todo\n"),
        ("tests/fuzz/corpus/http/one", "todo\n"),
    ]));
    assert_eq!(
        found,
        [
            "README.md:2: \"in vain\"; better: without success, or: to no effect",
            "README.md:3: \"in vain\"; better: without success, or: to no effect",
            "src/a.rs:1: \"in vain\"; better: without success, or: to no effect",
            "src/a.rs:2: \"ends unseen\"; better: its result is discarded",
        ]
    );
    for (word, _) in FORBIDDEN {
        assert_eq!(faults(&Tree::planted(&[("a.md", &format!("a {word}."))])).len(), 1, "{word}");
    }
}
