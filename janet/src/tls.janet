# The module `ringspun/tls`: TLS over the streams of net/. What it returns are streams: every function and method of
# them works, and so does every library that takes one.

(defn- check [what options known]
  (eachk key options
    (unless (index-of key known)
      (errorf "%s: unknown option %q, expected one of %s" what key
              (string/join (map |(string/format "%q" $) known) " ")))))

(defn- pem
  # Text in PEM, or the name of a file of it.
  [what value]
  (cond
    (nil? value) nil
    (not (bytes? value)) (errorf "%s: expected text in PEM or the name of a file, got %q" what value)
    (string/find "-----BEGIN" value) value
    (try (slurp value) ([error] (errorf "%s: %s" what error)))))

(defn- protocols [value]
  (cond
    (nil? value) nil
    (and (indexed? value) (all bytes? value)) (string/join value ",")
    (errorf ":alpn: expected a tuple of strings, such as [\"http/1.1\"], got %q" value)))

(def- client-options [:ca :cert :key :alpn :insecure :server-name :resume])
(def- server-options [:cert :key :certs :client-ca :client-optional :alpn :resume])

(defn client-config
  ``What a client offers and expects, to be used for many connections, as :config: those resume each other's sessions.

  * :ca - authorities to trust instead of the system's: text in PEM, or a file of it
  * :cert, :key - a certificate to present, and its private key, likewise
  * :alpn - protocols to offer, the preferred one first
  * :server-name - the name to ask for and to check, in place of the host
  * :resume - false: no session is resumed
  * :insecure - true: any certificate is accepted, for any name. Anyone on the way can read and change everything.``
  [&keys options]
  (check "tls/client-config" options client-options)
  (def {:ca ca :cert cert :key key :alpn alpn :insecure insecure :server-name name :resume resume} options)
  (ringspun/tls-client-config (pem ":ca" ca) (pem ":cert" cert) (pem ":key" key) (protocols alpn)
                              (truthy? insecure) name (not= resume false)))

(defn- identities [what {:cert cert :key key :certs certs}]
  (def pairs (or certs [[cert key]]))
  (each pair pairs
    (unless (and (indexed? pair) (= 2 (length pair)) (all truthy? pair))
      (errorf "%s: expected :cert and :key, or :certs, a tuple of such pairs" what)))
  (mapcat (fn [[cert key]] [(pem ":cert" cert) (pem ":key" key)]) pairs))

(defn server-config
  ``What a server presents and accepts.

  * :cert, :key - a certificate chain and its private key: text in PEM, or a file of it
  * :certs - several of them, [[cert key] ...]: the first that is for the name that a client asks for (SNI)
  * :client-ca - authorities: clients must present a certificate that one of them has signed
  * :client-optional - true: those that present none are accepted, too
  * :alpn - protocols to accept, the preferred one first
  * :resume - false: no session is resumed``
  [&keys options]
  (check "tls/server-config" options server-options)
  (def {:client-ca ca :client-optional optional :alpn alpn :resume resume} options)
  (ringspun/tls-server-config (pem ":client-ca" ca) (truthy? optional) (protocols alpn) (not= resume false)
                              ;(identities "tls/server-config" options)))

(defn renew
  ``Replaces the certificates of a configuration, for connections that begin from now on: without a restart. Takes
  :cert and :key, or :certs, as tls/server-config does.``
  [config &keys options]
  (check "tls/renew" options [:cert :key :certs])
  (ringspun/tls-renew config ;(identities "tls/renew" options)))

(var- default-config nil)

(defn- client-config-of [what options]
  (check what options [:config ;client-options])
  (def rest (struct ;(mapcat identity (filter |(not= :config (first $)) (pairs options)))))
  (cond
    (options :config) (if (empty? rest)
                        (options :config)
                        (errorf "%s: expected other options in the configuration" what))
    (not (empty? rest)) (client-config ;(kvs rest))
    (do (unless default-config (set default-config (client-config))) default-config)))

(defn- server-config-of [what options]
  (check what options [:config ;server-options])
  (or (options :config) (server-config ;(kvs options))))

(defn- need-own-streams [what]
  (when (= :stock (ringspun/backend))
    (errorf "%s needs Ringspun's network code: unset RINGSPUN_NET=stock" what)))

(defn- begin [stream config host]
  (try
    (ringspun/tls-begin stream config host)
    ([error fiber]
      (:close stream)
      (propagate error fiber))))

(defn wrap
  ``Begins TLS, as a client, on a stream that has been used before (STARTTLS), and returns the stream when the handshake
  is complete. The certificate must be for host. Takes the options of tls/client-config, or :config. The stream is
  closed if the handshake fails.``
  [stream host &keys options]
  (need-own-streams "tls/wrap")
  (begin stream (client-config-of "tls/wrap" options) host))

(defn accept
  ``Performs the server's side of a handshake on a stream, which may have been used before (STARTTLS), and returns the
  stream. Takes the options of tls/server-config, or :config. The stream is closed if the handshake fails.``
  [stream &keys options]
  (need-own-streams "tls/accept")
  (begin stream (server-config-of "tls/accept" options) nil))

(defn connect
  ``Connects to a server, and returns a stream when the handshake is complete. The server's certificate must be for
  host, and signed by an authority of the system. Takes the options of tls/client-config, or :config.``
  [host port &keys options]
  (need-own-streams "tls/connect")
  (def config (client-config-of "tls/connect" options))
  (begin (net/connect host port) config host))

(defn listen
  ``Listens, and returns a stream that accepts connections with TLS: by net/accept, net/accept-loop and their methods.
  The first read or write of such a connection performs the handshake, and raises its error. Takes the options of
  tls/server-config, or :config.``
  [host port &keys options]
  (need-own-streams "tls/listen")
  (def config (server-config-of "tls/listen" options))
  (ringspun/tls-listener (net/listen host port) config))

(defn server
  ``Listens, and serves each connection by the handler in a fiber of its own, as net/server does. Takes the options of
  tls/server-config, or :config.``
  [host port &opt handler & options]
  (def listener (listen host port ;options))
  (when handler (ev/go (fn [] (net/accept-loop listener handler))))
  listener)

(defn info
  ``What was negotiated, as a table: :version, :cipher, :key-exchange, :alpn, :resumed and :server-name. Nil before the
  end of the handshake, and for streams without TLS.``
  [stream]
  (ringspun/tls-info stream))

(defn self-signed
  ``A certificate that signs itself for these host names or addresses, and its private key, as [cert key] in PEM: for
  tests and trials. Clients trust it as :ca.``
  [& names]
  (ringspun/tls-self-signed ;names))
