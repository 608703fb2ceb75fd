"""The folders below share the tiny bundles that lie here; pytest puts the folder of this file on the path for them."""
