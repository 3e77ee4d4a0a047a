#!/bin/sh
# Makes a CA, and one certificate for the gateways of all cells, with openssl:
#   deploy/certificates.sh DIRECTORY NAME…
# The names are those by which users, and other gateways, call a gateway (BOATYARD_GATEWAY_ADVERTISED_ADDRESS).
# localhost and 127.0.0.1 are always included, for `boatyard up` and the command line on the same machine.
#   DIRECTORY/ca.key   is for this script alone: whoever has it can pose as any cell.
#   DIRECTORY/cells    is for cells to mount, as a directory, because files are replaced. Its gateway.key must belong to
#                      the user that reads it: chown it once.
# Run again, the script renews the certificate under the same CA and keeps the key's owner; gateways use the new
# certificate without a restart.
set -eu
umask 077
directory=${1:?a directory}
shift
mkdir -p "$directory/cells"
chmod 755 "$directory/cells"
cd "$directory"
days=825

names="DNS:localhost,IP:127.0.0.1"
for name in "$@"; do names="$names,DNS:$name"; done

if ! [ -e ca.key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650 \
        -subj "/CN=Boatyard CA" -keyout ca.key -out cells/ca.crt
fi
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "/CN=boatyard" \
    -keyout gateway.key -out gateway.csr
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" > gateway.ext
openssl x509 -req -in gateway.csr -CA cells/ca.crt -CAkey ca.key -CAserial ca.srl -CAcreateserial -days $days \
    -extfile gateway.ext -out gateway.crt
chmod 644 cells/ca.crt gateway.crt
if [ -e cells/gateway.key ]; then chown --reference=cells/gateway.key gateway.key; fi
mv gateway.key gateway.crt cells
rm gateway.csr gateway.ext
