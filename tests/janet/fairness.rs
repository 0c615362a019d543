//! A Janet server with one peer that sends without end: how much of the flood is served while another fiber makes a
//! round trip. Bytes are counted, not time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

/// What a read asks for, of which the VM runs one in each of its turns, and what the kernel delivers in one.
const TURN_MAX_BYTES: u64 = (64 + 512) * 1024;
/// A message to another fiber and its echo take four turns: each is sent in one and received in the next.
const ROUND_TRIP_MAX_BYTES: u64 = 4 * TURN_MAX_BYTES;
const FLOOD_BYTES: u64 = 16 * ROUND_TRIP_MAX_BYTES;

#[test]
fn round_trips_in_janet_go_on_during_a_flood() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/janet/fairness/round_trips.janet");
    let mut server = Command::new(env!("CARGO_BIN_EXE_ringspun"))
        .args(["janet", script, &FLOOD_BYTES.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening at ").expect("the server says where it listens");

    let mut flooder = TcpStream::connect(address).unwrap();
    let mut sender = flooder.try_clone().unwrap();
    thread::spawn(move || {
        let message = vec![1; 1 << 20];
        while sender.write_all(&message).is_ok() {}
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while flooder.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });

    line.clear();
    output.read_line(&mut line).unwrap();
    assert!(server.wait().unwrap().success());
    let counts: Vec<u64> = line.split_whitespace().map(|count| count.parse().unwrap()).collect();
    let [most, served] = counts[..] else { panic!("{line:?}: expected two counts") };
    println!("{most} bytes of the flood were served during a round trip, {ROUND_TRIP_MAX_BYTES} may be");
    assert!(served >= FLOOD_BYTES, "{served} bytes of the flood were served");
    assert!(most <= ROUND_TRIP_MAX_BYTES, "{most} bytes of the flood were served during a round trip");
}
