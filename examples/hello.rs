//! An echo server on every core: one fiber per connection.
fn main() -> std::io::Result<()> {
    // Port 0: one that is free.
    let server = ringspun::net::serve("127.0.0.1:0", |stream| {
        while let Ok(Some(bytes)) = stream.receive() {
            if stream.write(&bytes).is_err() {
                break;
            }
        }
    })?;
    println!("listening at {}", server.addresses()[0]);
    server.wait()
}
