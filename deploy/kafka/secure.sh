# shellcheck shell=bash
# Sourced by start --secure: creates certificates and a password, and adds a listener for each kind of login.
# In $secrets (mode 0700): ca.pem, broker.pem, expired.pem, client.pem and client.key (encrypted), and the file `password`,
# which is user monitor's and also opens client.key. Nothing here is fit for production: the authority's key lies beside it.

secure_listeners=(TLS:SSL MUTUAL:SSL LOGIN:SASL_SSL READABLE:SASL_PLAINTEXT EXPIRED:SSL)

new_key=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1)

sign() { # name, days: $name.csr becomes $name.pem, valid for 127.0.0.1 only
  printf 'basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n' >"$secrets/extensions"
  openssl x509 -req -in "$secrets/$1.csr" -CA "$secrets/ca.pem" -CAkey "$secrets/ca.key" -CAcreateserial \
    -extfile "$secrets/extensions" -days "$2" -out "$secrets/$1.pem"
}

make_secrets() {
  local name days
  openssl rand -hex 16 >"$secrets/password"
  "${new_key[@]}" -x509 -nodes -days 30 -subj "/CN=authority of a test" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$secrets/ca.key" -out "$secrets/ca.pem"
  for name in broker:30 expired:0; do
    days=${name#*:} name=${name%:*}
    "${new_key[@]}" -nodes -subj "/CN=$name" -keyout "$secrets/$name.key" -out "$secrets/$name.csr"
    sign "$name" "$days"
    cat "$secrets/$name.key" >>"$secrets/$name.pem" # Kafka wants both in one file
  done
  "${new_key[@]}" -passout "file:$secrets/password" -subj "/CN=monitor" -keyout "$secrets/client.key" -out "$secrets/client.csr"
  sign client 30
}

secure_port() { # number of the listener, from 0; node: the ports after the clients' and the controllers'
  printf '%s' $((port + 2 * nodes + $1 * nodes + $2 - 1))
}

secure_properties() { # node: the lines that its server.properties ends with; the last of two lines with one key counts
  local at="" map="" i name password mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER login=org.apache.kafka.common.security
  password=$(<"$secrets/password")
  for i in "${!secure_listeners[@]}"; do
    name=${secure_listeners[i]}
    at+=,${name%:*}://127.0.0.1:$(secure_port "$i" "$1")
    map+=,$name
  done
  sed -nE "s/^((advertised\.)?listeners=.*)/\1${at//\//\\/}/p; s/^(listener\.security\.protocol\.map=.*)/\1$map/p" \
    "$dir/node-$1/server.properties"
  cat <<PROPERTIES
ssl.keystore.type=PEM
ssl.keystore.location=$secrets/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$secrets/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location=$secrets/expired.pem
listener.name.login.sasl.enabled.mechanisms=$mechanisms
listener.name.readable.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
PROPERTIES
  for name in login readable; do
    cat <<PROPERTIES
listener.name.$name.plain.sasl.jaas.config=$login.plain.PlainLoginModule required user_monitor="$password";
listener.name.$name.scram-sha-256.sasl.jaas.config=$login.scram.ScramLoginModule required;
listener.name.$name.scram-sha-512.sasl.jaas.config=$login.scram.ScramLoginModule required;
PROPERTIES
  done
  # Kafka's substitute for an identity provider: it accepts unsigned tokens. A login ends when its token expires.
  echo "listener.name.login.oauthbearer.connections.max.reauth.ms=3600000"
  echo "listener.name.login.oauthbearer.sasl.jaas.config=$login.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"monitor\";"
}

secure_users() { # the options of StorageTool that add user monitor
  local mechanism
  for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
    printf '%s\n' --add-scram "$mechanism=[name=monitor,password=$(<"$secrets/password")]"
  done
}

report_secure() {
  local i
  for i in "${!secure_listeners[@]}"; do
    report "$(printf '%-9s 127.0.0.1:%s  %s' "${secure_listeners[i]%:*}" "$(secure_port "$i" 1)" "${secure_listeners[i]#*:}")"
  done
  report "user monitor; its password, certificates and keys: $secrets"
}
