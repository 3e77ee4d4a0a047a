#!/bin/sh
# Makes a CA, and one certificate for the gateways of all cells, with openssl:
#   deploy/certificates.sh DIRECTORY NAME…
# The names are those by which gateways are called: by users, and by one another (BOATYARD_GATEWAY_ADVERTISED_ADDRESS).
# localhost and 127.0.0.1 are always among them, for `boatyard up` and the command line beside it.
#   DIRECTORY/ca.key   is for this script alone: who has it is any cell.
#   DIRECTORY/cells    is for cells to mount, as a directory, for files are replaced. Its gateway.key must be its
#                      reader's: chown it once.
# Run again, it renews the certificate under the same CA, and the owner of the key stays; gateways take the new one
# without a restart.
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
