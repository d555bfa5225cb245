"""What a deployment is made of, as data: the topics; every setting with its unit and meaning."""
