"""Gates, which hold runs against rules: the verdict, and the reports that pipelines read."""
