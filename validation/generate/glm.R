# Ordinary regressions on `framing`: coefficients and every covariance. Rscript glm.R DATA_FOLDER OUT_FOLDER
suppressMessages({library(sandwich);library(jsonlite)})
D=commandArgs(TRUE)[1];O=commandArgs(TRUE)[2]
d=read.csv(file.path(D,"framing.csv"),stringsAsFactors=TRUE)
tight=glm.control(epsilon=1e-15,maxit=100)
covariates="treat + age + educ + gender + income"
fits=list(
 linear=lm(as.formula(paste("emo ~",covariates)),d),
 probit=glm(as.formula(paste("cong_mesg ~ emo +",covariates)),d,family=binomial("probit"),control=tight),
 logit=glm(as.formula(paste("cong_mesg ~ emo +",covariates)),d,family=binomial("logit"),control=tight),
 poisson=glm(as.formula(paste("p_harm ~",covariates)),d,family=poisson(),control=tight))
bare=function(V)unname(as.matrix(V))
pack=function(f){o=list(formula=deparse1(formula(f)),names=names(coef(f)),coef=unname(coef(f)),logLik=as.numeric(logLik(f)),n_obs=nobs(f),
  sigma=if(inherits(f,"glm"))NULL else summary(f)$sigma,vcov=bare(vcov(f)))
 for(k in c("HC0","HC1","HC2","HC3"))o[[k]]=bare(vcovHC(f,type=k))
 # clusters: the values of income; the factor is J/(J - 1) alone
 o$cluster=bare(vcovCL(f,cluster=d$income,type="HC0",cadjust=TRUE));o}
write_json(list(software=paste0(R.version.string,", sandwich ",packageVersion("sandwich")),data="framing",cluster="income",fits=lapply(fits,pack)),
 file.path(O,"glm","framing.json"),digits=NA,auto_unbox=TRUE,pretty=TRUE)
