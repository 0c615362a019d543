//! What the module `ringspun/tls` is made of: functions that its source in Janet, `tls.janet`, calls.

use std::ffi::{c_int, c_void};
use std::io;
use std::rc::Rc;

use ringspun_net::machine::ListenerCore;
use ringspun_tls::machine::{Handshake, TlsCore};
use ringspun_tls::rustls::{Connection, HandshakeKind};
use ringspun_tls::{ClientAuth, ClientConfig, Identity, Roots, ServerConfig};

use crate::api as janet;
use crate::api::{Janet, JanetStream, JanetTable};
use crate::parked::start;
use crate::shims::{carry_out, is_ours, stream_argument, this_bridge};
use crate::socket::Socket;
use crate::stock::{Replacement, replacement};
use crate::values::{Verdict, error_string, keyword, nil, string, strings};
use crate::work::Work;

/// The functions, for the environment of the module alone.
pub(crate) const TLS_FUNCTIONS: [Replacement; 7] =
    [TLS_CLIENT_CONFIG, TLS_SERVER_CONFIG, TLS_RENEW, TLS_BEGIN, TLS_LISTENER, TLS_INFO, TLS_SELF_SIGNED];

/// The source of the module.
pub(crate) const TLS_SOURCE: &str = include_str!("tls.janet");

/// What a value of [`CONFIG_TYPE`] points to.
enum Config {
    Client(ClientConfig),
    Server(Rc<ServerConfig>),
}

/// The type of configurations. A value is the address of a [`Config`], which is the collector's to drop.
struct ConfigType(janet::JanetAbstractType);

// SAFETY: never changed.
unsafe impl Sync for ConfigType {}

static CONFIG_TYPE: ConfigType = ConfigType(janet::JanetAbstractType {
    name: c"ringspun/tls-config".as_ptr(),
    gc: Some(drop_config),
    gcmark: None,
    others: [None; 12],
});

unsafe extern "C" fn drop_config(place: *mut c_void, _: usize) -> c_int {
    // SAFETY: the collector passes what `config_value` has made, once.
    unsafe { drop(Box::from_raw(*place.cast::<*mut Config>())) };
    0
}

fn config_value(config: Config) -> Janet {
    // SAFETY: the VM runs on this thread; the value is set before the collector can look.
    unsafe {
        let place = janet::janet_abstract(&raw const CONFIG_TYPE.0, size_of::<*mut Config>());
        place.cast::<*mut Config>().write(Box::into_raw(Box::new(config)));
        janet::janet_wrap_abstract(place)
    }
}

/// An argument that is a configuration, or the VM's error about it.
unsafe fn config_argument<'a>(arguments: *mut Janet, index: i32) -> &'a Config {
    // SAFETY: called by a shim that has checked that the argument is there; alive as long as the argument.
    unsafe { &**janet::janet_getabstract(arguments, index, &raw const CONFIG_TYPE.0).cast::<*mut Config>() }
}

/// The bytes of an argument, `None` for nil, or the VM's error about it. Plain data.
unsafe fn optional_bytes<'a>(arguments: *mut Janet, index: i32) -> Option<&'a [u8]> {
    // SAFETY: as in `config_argument`. What they lie in is alive for as long as the argument, and nothing of the VM
    // runs while they are used.
    unsafe {
        if janet::janet_checktype(*arguments.add(index as usize), janet::JANET_NIL) != 0 {
            return None;
        }
        let view = janet::janet_getbytes(arguments, index);
        let length = usize::try_from(view.len).unwrap_or(0);
        Some(if length == 0 { &[] } else { std::slice::from_raw_parts(view.bytes, length) })
    }
}

/// Raises, as the VM does, for the first argument from an index on that has no bytes; so that none does later.
unsafe fn check_bytes(count: i32, arguments: *mut Janet, from: i32) {
    for index in from..count {
        // SAFETY: called by a shim; the index is below the count.
        unsafe { janet::janet_getbytes(arguments, index) };
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn protocols(alpn: Option<&[u8]>) -> Vec<String> {
    alpn.map_or_else(Vec::new, |alpn| text(alpn).split(',').map(String::from).collect())
}

fn verdict(made: io::Result<Janet>) -> Verdict {
    made.map_or_else(|error| Verdict::Raise(error_string(&error)), Verdict::Return)
}

const TLS_CLIENT_CONFIG: Replacement = replacement!(c"ringspun/tls-client-config", tls_client_config);

unsafe extern "C-unwind" fn tls_client_config(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM may raise.
    unsafe {
        janet::janet_fixarity(count, 7);
        let bytes = [0, 1, 2, 3, 5].map(|index| optional_bytes(arguments, index));
        let flag = |index: usize| janet::janet_truthy(*arguments.add(index)) != 0;
        let (insecure, resumes) = (flag(4), flag(6));
        carry_out(|| verdict(client_config(bytes, insecure, resumes)))
    }
}

fn client_config(bytes: [Option<&[u8]>; 5], insecure: bool, resumes: bool) -> io::Result<Janet> {
    let [ca, cert, key, alpn, name] = bytes;
    let alpn = protocols(alpn);
    let mut builder = ClientConfig::builder().alpn(alpn.iter().map(String::as_str)).resumption(resumes);
    if let Some(ca) = ca {
        builder = builder.roots(Roots::from_pem(ca)?);
    }
    match (cert, key) {
        (Some(cert), Some(key)) => builder = builder.identity(Identity::from_pem(cert, key)?),
        (None, None) => {}
        _ => return Err(io::Error::other("a certificate needs its key: expected :cert and :key")),
    }
    if let Some(name) = name {
        builder = builder.server_name(text(name));
    }
    if insecure {
        builder = builder.dangerous_accept_any_certificate();
    }
    Ok(config_value(Config::Client(builder.build()?)))
}

const TLS_SERVER_CONFIG: Replacement = replacement!(c"ringspun/tls-server-config", tls_server_config);

/// Where the certificates and keys of a server begin among its arguments.
const SERVER_IDENTITIES: i32 = 4;

unsafe extern "C-unwind" fn tls_server_config(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `tls_client_config`.
    unsafe {
        janet::janet_arity(count, SERVER_IDENTITIES, -1);
        let (client_ca, alpn) = (optional_bytes(arguments, 0), optional_bytes(arguments, 2));
        let flag = |index: usize| janet::janet_truthy(*arguments.add(index)) != 0;
        let (is_optional, resumes) = (flag(1), flag(3));
        check_bytes(count, arguments, SERVER_IDENTITIES);
        carry_out(|| {
            let identities = identities(count, arguments, SERVER_IDENTITIES);
            verdict(identities.and_then(|identities| {
                let alpn = protocols(alpn);
                let mut builder = ServerConfig::builder().alpn(alpn.iter().map(String::as_str));
                builder =
                    identities.into_iter().fold(builder.resumption(resumes), |all, one| all.identity(one));
                if let Some(client_ca) = client_ca {
                    let auth = if is_optional { ClientAuth::Optional } else { ClientAuth::Required };
                    builder = builder.client_auth(auth, Roots::from_pem(client_ca)?);
                }
                Ok(config_value(Config::Server(Rc::new(builder.build()?))))
            }))
        })
    }
}

/// Certificates and keys, in turn.
unsafe fn identities(count: i32, arguments: *mut Janet, from: i32) -> io::Result<Vec<Identity>> {
    let pairs = (from..count - 1).step_by(2);
    pairs
        .map(|index| {
            // SAFETY: the caller is a shim that has checked that these have bytes.
            let pair = unsafe { [index, index + 1].map(|index| optional_bytes(arguments, index)) };
            Identity::from_pem(pair[0].unwrap_or_default(), pair[1].unwrap_or_default())
        })
        .collect()
}

const TLS_RENEW: Replacement = replacement!(c"ringspun/tls-renew", tls_renew);

unsafe extern "C-unwind" fn tls_renew(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `tls_client_config`.
    unsafe {
        janet::janet_arity(count, 1, -1);
        let config = config_argument(arguments, 0);
        check_bytes(count, arguments, 1);
        carry_out(|| match config {
            Config::Server(config) => {
                let renewed = identities(count, arguments, 1);
                verdict(renewed.and_then(|identities| config.set_identities(identities)).map(|()| *arguments))
            }
            Config::Client(_) => Verdict::Raise(string("expected the configuration of a server")),
        })
    }
}

const TLS_BEGIN: Replacement = replacement!(c"ringspun/tls-begin", tls_begin);

unsafe extern "C-unwind" fn tls_begin(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `tls_client_config`.
    unsafe {
        janet::janet_fixarity(count, 3);
        let stream = stream_argument(arguments);
        janet::janet_stream_flags(stream, janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE);
        let config = config_argument(arguments, 1);
        let host = optional_bytes(arguments, 2);
        carry_out(|| begin(stream, config, host))
    }
}

unsafe fn begin(stream: *mut JanetStream, config: &Config, host: Option<&[u8]>) -> Verdict {
    let bridge = match this_bridge() {
        Ok(bridge) => bridge,
        Err(verdict) => return verdict,
    };
    // SAFETY: the shim's live stream.
    if !unsafe { is_ours(stream) } {
        return Verdict::Raise(string("bad stream, expected a socket"));
    }
    let Socket::Stream(core) = bridge.socket_of(stream) else {
        return Verdict::Raise(string("bad stream, expected a connected stream without TLS"));
    };
    let session = match (config, host) {
        (Config::Client(config), Some(host)) => config.connection(&text(host)),
        (Config::Client(_), None) => return Verdict::Raise(string("expected the configuration of a server")),
        (Config::Server(_), Some(_)) => {
            return Verdict::Raise(string("expected the configuration of a client"));
        }
        (Config::Server(config), None) => config.connection(),
    };
    let session = match session {
        Ok(session) => session,
        Err(error) => return Verdict::Raise(error_string(&error)),
    };
    let tls = TlsCore::new(core, session);
    bridge.replace_socket(stream, Socket::Tls(tls.clone()));
    let work = Work::Handshake { machine: Handshake::new(tls) };
    // SAFETY: called by a shim, with its live stream.
    unsafe { start(&bridge, stream, work, f64::INFINITY) }
}

const TLS_LISTENER: Replacement = replacement!(c"ringspun/tls-listener", tls_listener);

unsafe extern "C-unwind" fn tls_listener(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `tls_client_config`.
    unsafe {
        janet::janet_fixarity(count, 2);
        let stream = stream_argument(arguments);
        janet::janet_stream_flags(stream, janet::JANET_STREAM_ACCEPTABLE);
        let config = config_argument(arguments, 1);
        carry_out(|| match (this_bridge().map(|bridge| (bridge.socket_of(stream), bridge)), config) {
            (Err(verdict), _) => verdict,
            (Ok((Socket::Listener(core, _), bridge)), Config::Server(config)) => {
                let core: Rc<ListenerCore> = core;
                bridge.replace_socket(stream, Socket::Listener(core, Some(config.clone())));
                Verdict::Return(*arguments)
            }
            _ => Verdict::Raise(string("expected a listener and the configuration of a server")),
        })
    }
}

const TLS_INFO: Replacement = replacement!(c"ringspun/tls-info", tls_info);

unsafe extern "C-unwind" fn tls_info(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `tls_client_config`.
    unsafe {
        janet::janet_fixarity(count, 1);
        let stream = stream_argument(arguments);
        janet::janet_stream_flags(stream, janet::JANET_STREAM_SOCKET);
        carry_out(|| match this_bridge().map(|bridge| bridge.socket_of(stream)) {
            Ok(Socket::Tls(core)) if !core.is_handshaking() => Verdict::Return(info(&core.connection())),
            Ok(_) => Verdict::Return(nil()),
            Err(verdict) => verdict,
        })
    }
}

fn info(connection: &Connection) -> Janet {
    // SAFETY: the VM runs on this thread, and collects nothing before we return.
    let table = unsafe { janet::janet_table(6) };
    put(table, "version", connection.protocol_version().and_then(|version| version.as_str()));
    let cipher = connection.negotiated_cipher_suite();
    put(table, "cipher", cipher.and_then(|suite| suite.suite().as_str()));
    let group = connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
    put(table, "key-exchange", group.as_deref());
    put(table, "alpn", connection.alpn_protocol().map(text).as_deref());
    if let Connection::Server(connection) = connection {
        put(table, "server-name", connection.server_name());
    }
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        put(table, "resumed", Some("yes"));
    }
    // SAFETY: the table that was just made.
    unsafe { janet::janet_wrap_table(table) }
}

fn put(table: *mut JanetTable, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        // SAFETY: a live table, and values that were just made.
        unsafe { janet::janet_table_put(table, keyword(key), string(value)) };
    }
}

const TLS_SELF_SIGNED: Replacement = replacement!(c"ringspun/tls-self-signed", tls_self_signed);

unsafe extern "C-unwind" fn tls_self_signed(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `tls_client_config`.
    unsafe {
        janet::janet_arity(count, 1, -1);
        check_bytes(count, arguments, 0);
        carry_out(|| {
            let names = (0..count).filter_map(|index| optional_bytes(arguments, index).map(text));
            let names: Vec<String> = names.collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            verdict(Identity::self_signed_pem(&names).map(|(chain, key)| strings(&[&chain, &key])))
        })
    }
}
